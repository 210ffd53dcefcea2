"""What the commands do, without the parsing of their arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import typer
from rich.text import Text

from harness import codec, plugins
from harness.cli.console import LiveProgress, make_console, print_choice, print_coverage, print_report
from harness.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_VERDICT,
    FileError,
    InfrastructureError,
    UsageError,
    did_you_mean,
)
from harness.execution import locks
from harness.execution.events import Event, Finished, Holding
from harness.execution.executor import Executor, Make
from harness.execution.pool import Pool
from harness.goldens import for_run
from harness.goldens.pin import known_digests
from harness.judging.comparisons import Measurer
from harness.matrix.coverage import cover as classify
from harness.matrix.loader import current_pin, current_store, read_matrix
from harness.matrix.schema import read_tables
from harness.matrix.selection import Selection, select
from harness.matrix.suggest import additions, as_toml
from harness.planning.cut import choose_axis
from harness.planning.graph import cost_of
from harness.planning.partition import Shard, divide
from harness.runs.folder import RunFolder, read_report
from harness.runs.merge import merge as merge_runs
from harness.session import explain, steps
from harness.session.background import AheadMeasurer
from harness.types import SCHEMA, Axis, GoldenPolicy, Report, Row, Size


def selection(
    cases: list[str] | None, sizes: list[str] | None, axes: list[str] | None, engines: list[str] | None
) -> Selection:
    """Check the filters of ``run``."""
    for axis in axes or ():
        if axis not in get_args(Axis):
            raise UsageError(f"--axis {axis!r}: {did_you_mean(axis, get_args(Axis))}")
    for engine in engines or ():
        if engine not in plugins.names("engines"):
            raise UsageError(f"--engine {engine!r}: {did_you_mean(engine, plugins.names('engines'))}")
    for size in sizes or ():
        _size(size)
    return Selection(cases or (), sizes or (), axes or (), engines or ())


def create(matrix: Path, out: Path, chosen: Selection, policy: str, shard: Shard | None = None) -> RunFolder | None:
    """Plan a matrix and make the run folder of it or of one of its shards; ``None`` if that shard has no case."""
    if policy not in get_args(GoldenPolicy):
        raise UsageError(f"--golden {policy!r}: {did_you_mean(policy, get_args(GoldenPolicy))}")
    checked = select(read_matrix(matrix), chosen)
    if policy == "required":
        for_run.fetch(checked)
    graph = steps.plan(checked)
    if shard and not divide(graph, shard.of)[shard.index - 1]:
        typer.echo(f"shard {shard} of {matrix} has no case: there is less to divide than there are shards")
        return None
    return RunFolder.create(out, checked, graph, cast(GoldenPolicy, policy), shard)


def merge(paths: Sequence[Path], out: Path, mixed: bool) -> int:
    """Make one run folder of several, judge it, and return the exit code that one run would have had."""
    store = current_store(RunFolder.open(paths[0]).plan.matrix)
    folder = merge_runs(paths, out, mixed, store)
    typer.echo(f"merged into {folder.path}")
    return compare(folder.path)


def resume(path: Path) -> RunFolder:
    """Open a run folder and plan it anew: runs of older code or weights count no more."""
    folder = RunFolder.open(path)
    folder.check_whole()
    if folder.plan.golden == "required":
        for_run.fetch(folder.plan.matrix, known_digests(folder, current_pin(folder.plan.matrix)))
    with locks.claimed(path, "planning"):
        folder.replan(steps.plan((folder.plan.whole or folder.plan).matrix))
    return folder


EXPLAINED_AT_MOST = 12
"""Failing rows that ``run`` explains unasked: enough to see what is wrong, and no second run of everything."""


def run(folder: RunFolder, judge: bool = True, explained: bool = True, executor: Make = Pool) -> int:
    """Compute what a run folder lacks, explain what fails, report, and return the exit code.

    Ctrl-C ends the computing; what is there is judged and reported all the same.
    """
    console = make_console()
    complete = True
    measurer = AheadMeasurer(folder) if judge else None
    try:
        with executor(folder.path / "logs") as running:
            _record(folder, running, measurer)
    except KeyboardInterrupt:
        complete = False
        console.print(Text(f"interrupted; finish it with: sp-harness run --resume {folder.path}"))
    except BaseException:
        if measurer:
            measurer.abandon()  # nobody will ask for it
        raise
    if measurer is None:
        console.print(Text(f"recorded; judge it with: sp-harness compare {folder.path}"))
        return EXIT_OK if complete else EXIT_INTERRUPTED
    try:
        report = _judged(folder, measurer.wait(), complete)
        failing = explain.select(report.rows) if explained and complete else []
        if failing:
            steps.write_reports(report, folder.path)  # what is judged stays, whatever becomes of the explaining
            try:
                _explain(folder, failing, EXPLAINED_AT_MOST, executor)
            except InfrastructureError as error:
                console.print(Text(f"not explained: {error}"))
            report = _judged(folder, measurer.wait(), complete)
        if not complete:
            report = replace(report, exit_code=EXIT_INTERRUPTED)
        print_report(console, report, steps.write_reports(report, folder.path))
    except KeyboardInterrupt:
        measurer.abandon()
        console.print(Text(f"interrupted; judge what is there with: sp-harness compare {folder.path}"))
        return EXIT_INTERRUPTED
    return report.exit_code


def explain_rows(path: Path, names: Sequence[str]) -> int:
    """Explain rows of a run folder, all failing ones by default, and write its reports anew."""
    folder = RunFolder.open(path)
    runs = folder.runs()
    complete = all(digest in runs for digest in folder.plan.specs)
    known = _judged(folder, None, complete)
    rows = explain.select(known.rows, names)
    if not rows:
        typer.echo("no row fails a comparison that can be explained; name one to look inside all the same")
        return known.exit_code
    if _explain(folder, rows):
        known = _judged(folder, None, complete)
    print_report(make_console(), known, steps.write_reports(known, path))
    return known.exit_code


def _judged(folder: RunFolder, measurer: Measurer | None, complete: bool) -> Report:
    """Judge a run folder, held to what its matrix file pins by now, and propose goldens that are missing."""
    report = steps.conclude(folder, measurer, complete=complete, pin=current_pin(folder.plan.matrix))
    for_run.propose(folder, report)
    return report


def _explain(folder: RunFolder, rows: Sequence[Row], at_most: int | None = None, executor: Make = Pool) -> bool:
    """Draw rows once more with a probe; whether there was anything to do."""
    chosen = rows[:at_most]
    if not chosen:
        return False
    console = make_console()
    console.print(Text(f"explaining {len(chosen)} of {len(rows)} failing rows" if at_most else "drawing once more"))
    if len(chosen) < len(rows):
        console.print(Text(f"the rest: sp-harness explain {folder.path}"))
    with executor(folder.path / "logs" / "explained") as running:
        for problem in explain.explain(folder, chosen, running):
            console.print(Text(problem))
    return True


def _record(folder: RunFolder, executor: Executor, measurer: AheadMeasurer | None) -> None:
    missing = folder.missing()
    with LiveProgress(make_console(), folder.plan.specs, done=len(folder.plan.specs) - len(missing)) as progress:
        progress.expect(sum(cost_of(spec) for spec in missing))

        def on_event(event: Event) -> None:
            progress(event)
            if measurer and isinstance(event, Finished):
                measurer.finished(event.run)
            elif measurer and isinstance(event, Holding):
                measurer.holding(event.devices)

        steps.record(folder, executor, on_event=on_event)


def plan(size: str, ulysses: int, ring: int, axis: str, as_json: bool) -> None:
    """Print both cuts of a size."""
    for name, degree in (("--ulysses", ulysses), ("--ring", ring)):
        if degree < 1:
            raise UsageError(f"{name} {degree}: a degree is at least 1")
    if axis not in ("auto", "h", "w"):
        raise UsageError(f"--axis {axis!r}: {did_you_mean(axis, ('auto', 'h', 'w'))}")
    choice = choose_axis(_size(size), ulysses, axis, ring)  # type: ignore[arg-type]
    if as_json:
        typer.echo(json.dumps(codec.encode(choice), indent=2))
    else:
        print_choice(make_console(), choice)


def compare(path: Path) -> int:
    """Judge a run folder again and write its reports."""
    folder = RunFolder.open(path)
    runs = folder.runs()
    result = _judged(folder, None, complete=all(digest in runs for digest in folder.plan.specs))
    print_report(make_console(), result, steps.write_reports(result, path))
    return result.exit_code


def report(path: Path) -> None:
    """Write the report formats again, and name the files."""
    for file in steps.write_reports(read_report(path), path).values():
        typer.echo(file)


def cover(matrices: Sequence[Path], as_json: bool) -> int:
    """Print which classes matrices meet together, and what to add to the last of them for the others."""
    planned = [steps.prepare(path) for path in matrices]
    coverage = classify(planned)
    last = planned[-1][0]
    text = as_toml(additions(last, coverage.missing), last, read_tables(matrices[-1])) if coverage.missing else ""
    if as_json:
        classes = [{"class": name, "count": len(rows), "rows": rows} for name, rows in coverage.rows.items()]
        document = {"matrices": list(map(str, matrices)), "classes": classes, "missing": coverage.missing}
        typer.echo(json.dumps(document | {"additions": text}, indent=2))
    else:
        print_coverage(make_console(), coverage.rows)
        if text:
            typer.echo(f"\n# to be added at the end of {matrices[-1]}:\n\n{text}", nl=False)
    return EXIT_VERDICT if coverage.missing else EXIT_OK


def ls(what: Path | None) -> None:
    """List plugins, the rows of a matrix, or the runs in a folder."""
    if what is None:
        for kind in plugins.KINDS:
            typer.echo(f"{kind}: {', '.join(plugins.names(kind))}")
    elif what.is_dir():
        for path in sorted(what.glob("*/plan.json")):
            typer.echo(_describe_run(path.parent))
    else:
        matrix, graph = steps.prepare(what)
        for row in graph.rows:
            cut = f"{row.plan.axis} {'+'.join(map(str, row.plan.shard_tokens))}" if row.plan else "-"
            typer.echo(f"{row.name}  {row.skip or cut}")
        typer.echo(f"{matrix.name}: {len(graph.rows)} rows, {len(graph.specs)} runs")


def _describe_run(path: Path) -> str:
    try:
        known = codec.read_json(path / "report.json", Report, SCHEMA)
    except FileError:
        return f"{path}  not judged"
    outcomes = [row.verdict.outcome.value for row in known.rows if row.verdict]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
    return f"{path}  exit code {known.exit_code}, {counts}"


def _size(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
