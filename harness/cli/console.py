"""Terminal output: live progress, plain lines where there is no terminal, and tables."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.errors import EXIT_BROKEN_PIPE
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.planning.graph import cost_of
from harness.reporting.escape import printable
from harness.types import Outcome, Relation, Report, Row, RunSpec

if TYPE_CHECKING:
    from harness.fuzz.search import Tally

STYLES = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.ERROR: "bold red",
    Outcome.TIMEOUT: "bold red",
    Outcome.SKIP: "dim",
    Outcome.NO_GOLDEN: "yellow",
}
NAMED_AT_MOST = 3
"""Rows named in a line that speaks of several."""
PLAIN_WIDTH = 200
"""Columns where the output is no terminal: logs wrap badly."""
MOST_COLUMNS = 100_000
"""More than any table needs."""
LINE_EVERY_S = 10.0
"""Time between lines about fuzzing where there is no terminal."""


class _Console(Console):
    """A console that shows control characters and obeys none, and knows what to do when its reader has gone."""

    goes_on = False

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render text with its control characters escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        """Go on without output, or end as a program that ``SIGPIPE`` ends."""
        with suppress(SystemExit):
            super().on_broken_pipe()
        if not self.goes_on:
            raise SystemExit(EXIT_BROKEN_PIPE)


def make_console(stderr: bool = False, goes_on: bool = False) -> Console:
    """Make a console that keeps its tables readable in a log file.

    Parameters
    ----------
    stderr
        Print to standard error.
    goes_on
        Go on when the reader of the output has gone: for commands that write files which count more.
    """
    console = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    console.goes_on = goes_on
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def print_table(console: Console, table: Table) -> None:
    """Print a table; on a terminal too narrow for its words, each row as a paragraph of ``head cell`` parts."""
    roomy = console.options.update(max_width=MOST_COLUMNS)
    least = Measurement.get(console, roomy, table).minimum
    if least <= console.width or not console.is_terminal:
        console.print(table, width=max(least, console.width), crop=False)
        return
    heads = [str(column.header).replace("\n", " ") for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]
        shown = [(head, text) for head, text in zip(heads, texts, strict=True) if text.plain]
        parts = [Text.assemble(f"{head} ".lstrip(), text) for head, text in shown]
        console.print(Text(", ").join(parts), overflow="fold")


def name_of(spec: RunSpec) -> str:
    """Name a run for a person: ``720x1280 spatial 2 ranks, axis h``."""
    if spec.image_pad_tokens is not None:
        how = f"replay with {spec.image_pad_tokens} pads"
    elif spec.world_size > 1:
        how = f"{spec.engine_label} {spec.world_size} ranks" + (f", axis {spec.plan.axis}" if spec.plan else "")
    else:
        how = f"{spec.engine_label} on one device"
    return f"{spec.case.name} {how}" + (f" [{spec.fault}]" if spec.fault else "")


class _Bar:
    """A bar on a terminal, and nothing elsewhere."""

    def __init__(self, console: Console, total: float, *columns: ProgressColumn) -> None:
        self._console = console
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class LiveProgress(_Bar):
    """A bar with the time left on a terminal, one line for each finished run elsewhere.

    Parameters
    ----------
    console
        Where it is shown.
    specs
        All runs, by digest.
    missing
        Those still to be computed; all by default.
    """

    def __init__(
        self, console: Console, specs: Mapping[str, RunSpec], missing: Collection[RunSpec] | None = None
    ) -> None:
        missing = specs.values() if missing is None else missing
        super().__init__(
            console,
            max(sum(map(cost_of, missing)), 1.0),
            TextColumn("{task.description}", markup=False),  # a fault stands in brackets
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._count, self._total = len(specs) - len(missing), len(specs)
        self._reached: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Started):
            self._bar.update(self._task, description=f"[{self._count}/{self._total}] {name_of(event.spec)}")
        elif isinstance(event, Stepped):
            self._reach(event.spec, 0.9 * event.step / event.spec.case.steps)
        elif isinstance(event, Finished):
            self._reach(event.run.spec, 1.0)
            self._count += 1
            self._say(event)
        elif isinstance(event, Waiting):
            self._console.print(Text(event.message))

    def _reach(self, spec: RunSpec, part: float) -> None:
        reached = part * cost_of(spec)
        self._bar.advance(self._task, reached - self._reached.get(spec.digest, 0.0))
        self._reached[spec.digest] = reached

    def _say(self, event: Finished) -> None:
        run = event.run
        line = f"[{self._count}/{self._total}] {name_of(run.spec)}: "
        if run.failure:
            self._console.print(Text(f"{line}{run.outcome}: {run.failure.message}", style="bold red"))
        elif not self._console.is_terminal:
            self._console.print(Text(f"{line}{run.wall_s:.1f} s"))


class FuzzProgress(_Bar):
    """Examples done and seconds left: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, 1.0, TextColumn("{task.description}", markup=False), BarColumn())
        self._said = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        """Show where the fuzzing stands after an example."""
        doing = f"shrinking {tally.found.outcome.value}, " if tally.found else ""
        line = f"{doing}{tally.examples} examples, {tally.left_s:.0f} s left"
        self._bar.update(self._task, description=line, completed=tally.elapsed_s, total=tally.seconds)
        if not self._console.is_terminal and time.monotonic() - self._said >= LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(line)


def print_report(console: Console, report: Report, files: Mapping[str, Path]) -> None:
    """Print the closing table, what is wrong in words, and where to look."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    figures = ("exchange", "control", "layout", "pair", "golden", "pair image", "golden image")
    for column in ("case", "variant", "shards", "pads", *figures, "verdict"):
        table.add_column(column, no_wrap=column != "shards")
    for row in report.rows:
        table.add_row(*_cells(row))
    print_table(console, table)
    for line in _wrong(report):
        console.print(line, soft_wrap=not console.is_terminal)
    for note in report.notes:
        console.print(Text(note))
    if any(row.verdict and row.verdict.outcome == Outcome.NO_GOLDEN for row in report.rows):
        folder = files["html"].parent if "html" in files else Path(report.name)
        console.print(Text(f"To approve the missing goldens: sp-harness approve {folder}"))
    counts = [f"{number} {outcome}" for outcome in Outcome if (number := _count(report, outcome))]
    state = "" if report.complete else "interrupted; "
    console.print(Text(f"{state}{', '.join(counts)} in {report.wall_s:.0f} s, exit code {report.exit_code}"))
    if "html" in files:
        console.print(Text(f"report: {files['html']}"))


def _wrong(report: Report) -> Iterator[Text]:
    """Sentences on what is wrong; rows of which the same is said share a line, and the table names them all."""
    said: dict[tuple[Outcome, str], list[str]] = {}
    for row in report.rows:
        verdict = row.verdict
        if verdict and verdict.outcome not in (Outcome.PASS, Outcome.SKIP, Outcome.NO_GOLDEN):
            said.setdefault((verdict.outcome, verdict.sentence), []).append(row.name)
    for (outcome, sentence), names in said.items():
        more = f" and {len(names) - NAMED_AT_MOST} more rows" if len(names) > NAMED_AT_MOST else ""
        yield Text(f"{', '.join(names[:NAMED_AT_MOST])}{more}: {sentence}", style=STYLES[outcome])


def _count(report: Report, outcome: Outcome) -> int:
    return sum(row.verdict is not None and row.verdict.outcome == outcome for row in report.rows)


def _cells(row: Row) -> list[Text]:
    outcome = row.verdict.outcome if row.verdict else Outcome.SKIP
    verdict = Text(outcome.value, style=STYLES[outcome])
    if row.skip is not None:
        return [Text(row.case.name), Text(row.variant.label), Text(row.skip, style="dim"), *[Text()] * 8, verdict]
    plan = row.plan
    shards = f"{plan.axis} {'+'.join(map(str, plan.shard_tokens))}" if plan else "-"
    total = plan.pad_tokens if plan else row.pads.total if row.pads else None
    pads = "-" if total is None else f"{total} (+{row.surplus_pads})"
    relations = (
        Relation.EXCHANGE,
        Relation.CONTROL,
        Relation.LAYOUT,
        Relation.PAIR,
        Relation.GOLDEN_CANDIDATE,
    )
    figures = [_figure(row, relation) for relation in relations]
    figures += [_image_figures(row, relation) for relation in (Relation.PAIR, Relation.GOLDEN_CANDIDATE)]
    if row.shares_with:
        verdict.append(f" (run of {row.shares_with})", style="dim")
    return [Text(row.case.name), Text(row.variant.label), Text(shards), Text(pads), *figures, verdict]


def _figure(row: Row, relation: Relation) -> Text:
    from harness.diagnose.sentence import describe  # numpy: `plan` does without

    comparison = row.comparison(relation)
    if comparison is None:
        return Text("-", style="dim")
    failing = row.verdict and any(j.relation == relation and j.ok is False for j in row.verdict.judgements)
    text = "problem" if comparison.problem else describe(comparison)
    return Text(text, style="bold red" if failing else "")


def _image_figures(row: Row, relation: Relation) -> Text:
    from harness.diagnose.sentence import describe_image  # numpy: `plan` does without

    return Text(describe_image(row.comparison(relation)))
