"""What a run says on the terminal: live progress, plain lines where there is none, the closing table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from harness.diagnose.sentence import describe
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.planning.graph import cost_of
from harness.types import AxisChoice, Outcome, Relation, Report, Row, RunSpec

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


def make_console(stderr: bool = False) -> Console:
    """Make a console that keeps its tables readable in a log file."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def name_of(spec: RunSpec) -> str:
    """Name a run for a person: ``720x1280 spatial 2 ranks, axis h``."""
    if spec.image_pad_tokens is not None:
        how = f"replay with {spec.image_pad_tokens} pads"
    elif spec.world_size > 1:
        how = f"{spec.engine} {spec.world_size} ranks" + (f", axis {spec.plan.axis}" if spec.plan else "")
    else:
        how = f"{spec.engine} on one device"
    return f"{spec.case.name} {how}" + (f" [{spec.fault}]" if spec.fault else "")


class LiveProgress:
    """A bar with the time left on a terminal, one line for each finished run elsewhere."""

    def __init__(self, console: Console, specs: Mapping[str, RunSpec], done: int = 0) -> None:
        self._console = console
        self._count, self._total = done, len(specs)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),  # a fault stands in brackets
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._reached: dict[str, float] = {}

    def expect(self, cost: float) -> None:
        """Set the whole cost of what is to be computed."""
        self._bar.update(self._task, total=max(cost, 1.0))

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

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


def print_report(console: Console, report: Report, files: Mapping[str, Path]) -> None:
    """Print the closing table, what is wrong in words, and where to look."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("case", "variant", "shards", "pads", "exchange", "control", "layout", "pair", "golden", "verdict"):
        table.add_column(column, no_wrap=column != "shards")
    for row in report.rows:
        table.add_row(*_cells(row))
    console.print(table)
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
    """What is wrong, in words; rows of which the same is said share a line, and the table names them all."""
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
        return [Text(row.case.name), Text(row.variant.label), Text(row.skip, style="dim"), *[Text()] * 6, verdict]
    plan = row.plan
    shards = f"{plan.axis} {'+'.join(map(str, plan.shard_tokens))}" if plan else "-"
    pads = f"{plan.pad_tokens} (+{plan.surplus_pad_tokens})" if plan else "-"
    relations = (
        Relation.EXCHANGE,
        Relation.CONTROL,
        Relation.LAYOUT,
        Relation.PAIR,
        Relation.GOLDEN_CANDIDATE,
    )
    figures = [_figure(row, relation) for relation in relations]
    if row.shares_with:
        verdict.append(f" (run of {row.shares_with})", style="dim")
    return [Text(row.case.name), Text(row.variant.label), Text(shards), Text(pads), *figures, verdict]


def _figure(row: Row, relation: Relation) -> Text:
    comparison = row.comparison(relation)
    if comparison is None:
        return Text("-", style="dim")
    failing = row.verdict and any(j.relation == relation and j.ok is False for j in row.verdict.judgements)
    text = "problem" if comparison.problem else describe(comparison)
    return Text(text, style="bold red" if failing else "")


def print_choice(console: Console, choice: AxisChoice) -> None:
    """Explain both cuts of one size and which of them wins."""
    console.print(
        Text(
            f"{choice.size}: {choice.tokens_h} rows x {choice.tokens_w} columns = "
            f"{choice.tokens_h * choice.tokens_w} image tokens, {choice.single_pad_tokens} pads on one device"
        )
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("axis", "shards", "local tokens", "target", "pads", "surplus", ""):
        table.add_column(column)
    for axis, plan in choice.axes.items():
        chosen = "chosen: " + choice.rule if axis == choice.chosen_axis else plan.reason
        shards, local = ("+".join(map(str, values)) for values in (plan.shard_tokens, plan.local_tokens))
        numbers = (plan.sequence_target, plan.pad_tokens, plan.surplus_pad_tokens)
        table.add_row(axis, shards, local, *map(str, numbers), chosen)
    console.print(table)
    if choice.chosen_axis is None:
        console.print(Text(choice.rule))


def print_coverage(console: Console, rows: Mapping[str, Sequence[str]], num_names: int = 3) -> None:
    """Print each class with the rows that meet it, or that none does."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("class", "rows", "such as"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for name, met in rows.items():
        such = Text(", ".join(met[:num_names])) if met else Text("not met", style="bold yellow")
        table.add_row(Text(name), str(len(met)), such)
    console.print(table)
    console.print(Text(f"{sum(map(bool, rows.values()))} of {len(rows)} classes are met"))
