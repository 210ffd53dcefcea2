"""``sp-harness run``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from harness import bug, files
from harness.cli import _bisect
from harness.cli._options import Python, check_known, echo, parse_size
from harness.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, BugError, InfrastructureError, UsageError, user_error
from harness.types import Axis, GoldenPolicy, Report

if TYPE_CHECKING:
    from rich.console import Console

    from harness.execution.executor import Make
    from harness.planning.graph import Graph
    from harness.planning.partition import Shard
    from harness.runs.folder import RunFolder
    from harness.types import Matrix

app = typer.Typer()

EXPLAINED_AT_MOST = 12
"""Failing rows that are explained unasked: enough to see what is wrong, and no second run of everything."""


@app.command(
    epilog="Examples: `sp-harness run matrices/pr.toml` | `sp-harness run matrices/pr.toml --case 720x720 --axis h` | "
    "`sp-harness run --resume reports/pr-20260101-120000` | `sp-harness run matrices/pr.toml --shard 1/4` | "
    "`sp-harness run matrices/engines.toml --engine sglang --python sglang=~/sglang/.venv/bin/python`"
)
def run(
    matrix: Annotated[Path | None, typer.Argument(metavar="MATRIX", help="Matrix file.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    case: Annotated[list[str] | None, typer.Option(help="Only cases of this name (shell pattern).")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Only this size, WIDTHxHEIGHT.")] = None,
    axis: Annotated[list[str] | None, typer.Option(help="Only this axis: auto, h, w, none.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine.")] = None,
    python: Python = None,
    golden: Annotated[str, typer.Option(help="'off' holds nothing to a golden; 'required' as the matrix says.")] = (
        "required"
    ),
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Finish this run folder.")] = None,
    judge: Annotated[bool, typer.Option("--judge/--no-judge", help="Record only; judge later by compare.")] = True,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Draw failing rows once more, and look inside.")
    ] = True,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts, for N machines; then sp-harness merge.")
    ] = None,
    bisect: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="Only this row; exit codes for git bisect run: 0 passes, 1 fails, 125 else."),
    ] = None,
    bad_error: Annotated[bool, typer.Option("--bad-error", help="With --bisect: an error fails too.")] = False,
    changed_since: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Only rows that files changed since this commit can touch; says why."),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Copy the run's summary.md to this fixed path.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Where runs are computed: local, or ray for a Ray cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The Ray cluster; found as ray finds it, or started here.")
    ] = None,
) -> None:
    """Run a matrix: draw every case with and without SP, compare, judge, report."""
    from harness import plugins
    from harness.execution import executor as executors
    from harness.goldens import for_run
    from harness.matrix.loader import read_matrix
    from harness.matrix.selection import Selection, alone, select
    from harness.planning.partition import Shard
    from harness.runs.folder import read_report
    from harness.session import steps

    if resume and (case or size or axis or engine or shard or changed_since or golden != "required"):
        raise UsageError(
            "--resume finishes what was planned; leave out --case, --size, --axis, --engine, --shard, --changed-since "
            "and --golden"
        )
    for name in axis or ():
        check_known("--axis", name, get_args(Axis))
    for name in engine or ():
        check_known("--engine", name, plugins.names("engines"))
    for name in size or ():
        parse_size(name)
    check_known("--golden", golden, get_args(GoldenPolicy))
    if (matrix is None) == (resume is None):
        raise UsageError("name either a matrix file or --resume RUN, for example: sp-harness run matrices/pr.toml")
    if (bisect and (resume or shard or not judge)) or (bad_error and not bisect):
        raise UsageError("--bisect ROW draws and judges one row of a matrix; leave out --resume, --shard, --no-judge")
    part = Shard.parse(shard) if shard is not None else None
    make = executors.maker(executor, ray_address)
    folder: RunFolder | None
    if matrix is None:
        folder = resumed(cast(Path, resume), python or ())
    else:
        wanted = Selection(case or (), size or (), axis or (), engine or ())
        selected = select(read_matrix(matrix, python or ()), wanted)
        selected = alone(selected, bisect) if bisect else selected
        selected = _touched(selected, changed_since) if changed_since else selected
        if golden == "required":
            for_run.fetch(selected)
        folder = created(out, selected, steps.plan(selected), cast(GoldenPolicy, golden), part)
    code = compute(folder, make, judge, explain and not bisect) if folder else EXIT_OK
    if summary and folder:
        _copy_summary(folder.path, summary)
    if bisect and folder and code not in (EXIT_INTERRUPTED, EXIT_BUG):
        (row,) = (row for row in read_report(folder.path).rows if row.name == bisect)
        code = _bisect.exit_code(row, bad_error)
    raise typer.Exit(code)


def _copy_summary(run: Path, to: Path) -> None:
    """Copy ``summary.md`` of a run that was judged to a path that is known before it begins."""
    written = run / "summary.md"
    if written.is_file():
        with files.writing(to.parent, "name another file with --summary"):
            files.write_text(to, written.read_text(encoding="utf-8"))


def _touched(matrix: Matrix, ref: str) -> Matrix:
    """Restrict a matrix to the rows that changes since a commit can touch, and say why; ends where there are none."""
    from harness.matrix.selection import rows_named
    from harness.session import changed

    reasons = changed.since(matrix, ref)
    for line in changed.sentences(reasons, len(matrix.pairs), ref):
        echo(line)
    if not reasons:
        raise typer.Exit(EXIT_OK)
    return rows_named(matrix, reasons)


def created(out: Path, matrix: Matrix, graph: Graph, golden: GoldenPolicy, shard: Shard | None) -> RunFolder | None:
    """Make the run folder of a matrix or of one of its shards; ``None`` if that shard has no case."""
    from harness.planning.partition import divide
    from harness.runs.folder import RunFolder

    if shard and not divide(graph, shard.of)[shard.index - 1]:
        echo(f"shard {shard} of {matrix.path} has no case: there is less to divide than there are shards")
        return None
    return RunFolder.create(out, matrix, graph, golden, shard)


def resumed(path: Path, python: Sequence[str] = ()) -> RunFolder:
    """Open a run folder and plan it anew: runs of older code or weights count no more.

    Parameters
    ----------
    path
        The run folder.
    python
        Interpreters of engines, ``ENGINE[@NAME]=PYTHON``, instead of those planned.
    """
    from harness.execution import locks
    from harness.goldens import for_run
    from harness.goldens.pin import known_digests
    from harness.matrix.loader import current_pin, known_interpreters, with_interpreters
    from harness.runs.folder import RunFolder
    from harness.session import steps

    folder = RunFolder.open(path)
    with locks.claimed(path, "planning"):
        folder.set_damaged_aside()
    matrix = folder.plan.matrix
    if folder.plan.golden == "required":
        for_run.fetch(matrix, known_digests(folder, current_pin(matrix)))
    with locks.claimed(path, "planning"):
        whole = (folder.plan.whole or folder.plan).matrix
        folder.replan(steps.plan(with_interpreters(whole, known_interpreters(whole, python), python)))
    return folder


def compute(folder: RunFolder, make: Make, judge: bool = True, explained: bool = True) -> int:
    """Compute what a run folder lacks, explain what fails, report, and return the exit code.

    Ctrl-C ends the computing; what is there is judged and reported all the same.

    Raises
    ------
    BugError
        For an exception that nothing is expected to raise; what is there is reported before.
    """
    try:
        return _compute(folder, make, judge, explained)
    except Exception as error:
        if user_error(error):
            raise
        raise _reported(error, folder) from error


def _reported(error: Exception, folder: RunFolder) -> BugError:
    """Keep the traceback of a bug in the run folder, and report what is there with the exit code of a bug."""
    from harness.session import steps

    kept = bug.keep(error, folder.path / "logs")
    with suppress(Exception):  # judging or reporting may be what is wrong
        report = steps.conclude(folder, complete=folder.is_complete())
        report = replace(report, exit_code=kept.exit_code, notes=(*report.notes, f"Ended early: {kept}."))
        steps.write_reports(report, folder.path)
    return kept


def _compute(folder: RunFolder, make: Make, judge: bool, explained: bool) -> int:
    from harness.cli.console import LiveProgress, make_console
    from harness.session import steps

    console = make_console(goes_on=True)
    complete = True
    try:
        progress = LiveProgress(console, folder.plan.specs, folder.missing())
        with make(folder.path / "logs") as executor, progress:
            steps.record(folder, executor, on_event=progress)
    except KeyboardInterrupt:
        complete = False
        console.print(f"interrupted; finish it with: sp-harness run --resume {folder.path}")
    if not judge:
        console.print(f"recorded; judge it with: sp-harness compare {folder.path}")
        return EXIT_OK if complete else EXIT_INTERRUPTED
    try:
        return _report(folder, console, complete, make if explained and complete else None).exit_code
    except KeyboardInterrupt:
        console.print(f"interrupted; judge what is there with: sp-harness compare {folder.path}")
        return EXIT_INTERRUPTED


def _report(folder: RunFolder, console: Console, complete: bool, make: Make | None) -> Report:
    """Judge and report; with an executor, failing rows are drawn once more in between."""
    from harness.cli.console import print_report
    from harness.goldens import for_run
    from harness.judging.comparisons import Measurer
    from harness.matrix.loader import current_pin
    from harness.session import explain, steps

    pin = current_pin(folder.plan.matrix)
    measurer = Measurer(folder)
    report = steps.conclude(folder, measurer, complete=complete, pin=pin)
    for_run.propose(folder, report)
    failing = explain.select(report.rows) if make else []
    if make and failing:
        steps.write_reports(report, folder.path)  # what is judged stays, whatever becomes of the explaining
        chosen = failing[:EXPLAINED_AT_MOST]
        console.print(f"explaining {len(chosen)} of {len(failing)} rows that fail or lie near a bound")
        if len(chosen) < len(failing):
            console.print(f"the rest: sp-harness explain {folder.path}")
        try:
            for problem in explain.explain(folder, chosen, make):
                console.print(problem)
        except InfrastructureError as error:
            console.print(f"not explained: {error}")
        report = steps.conclude(folder, measurer, pin=pin)
    if not complete:
        report = replace(report, exit_code=EXIT_INTERRUPTED)
    print_report(console, report, steps.write_reports(report, folder.path))
    return report
