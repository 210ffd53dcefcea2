"""Terminal output: live progress, plain lines where there is no terminal, and tables."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from harness.diagnose.sentence import describe
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.planning.graph import cost_of
from harness.reporting import cost_table
from harness.types import AxisChoice, Outcome, Relation, Report, Row, RunSpec

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
LINE_EVERY_S = 10.0
"""Time between lines about fuzzing where there is no terminal."""


def make_console(stderr: bool = False) -> Console:
    """Make a console that keeps its tables readable in a log file."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


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
        self._console = console
        self._count, self._total = len(specs) - len(missing), len(specs)
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
        self._task = self._bar.add_task("starting", total=max(sum(map(cost_of, missing)), 1.0))
        self._reached: dict[str, float] = {}

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


class FuzzProgress:
    """Examples done and seconds left: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._said = time.monotonic()

    def __enter__(self) -> FuzzProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

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


def print_costs(console: Console, report: Report, lines: Sequence[cost_table.Line]) -> None:
    """Print what splitting costs, a line for each cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in cost_table.HEADS.values():
        table.add_column(head.replace(" (", "\n("), no_wrap=True)
    for line in lines:
        table.add_row(*(Text(cell) for cell in astuple(line)))
    console.print(table)
    console.print(Text(f"{report.name}, {report.platform}. {cost_table.KEY}"), soft_wrap=True)


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
