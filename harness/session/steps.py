"""Steps from a matrix to a report.

``prepare`` reads and plans, ``record`` computes, ``conclude`` compares and judges, ``write_reports`` reports. The run
folder between them is on disk, so each can be repeated, or done on another machine.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import __version__, files, models, plugins
from harness.diagnose import calibration
from harness.diagnose.calibration import Calibration
from harness.errors import (
    EXIT_INFRASTRUCTURE,
    EXIT_OK,
    EXIT_USAGE,
    EXIT_VERDICT,
    ConfigError,
)
from harness.execution import locks
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.execution.executor import Executor
from harness.goldens.for_run import Goldens
from harness.goldens.pin import known_digests
from harness.judging import judge
from harness.judging.comparisons import Measurer
from harness.judging.own_arithmetic import with_unverified
from harness.matrix.loader import read_matrix
from harness.matrix.selection import EVERYTHING, Selection, select
from harness.planning.graph import Graph, build
from harness.runs.folder import RunFolder, read_report
from harness.runs.machines import mixed
from harness.runs.merge import division_notes
from harness.types import (
    Case,
    Matrix,
    ModelSpec,
    Outcome,
    Report,
    Row,
    Run,
)

OnEvent = Callable[[Event], None]


def prepare(path: Path, selection: Selection = EVERYTHING, python: Sequence[str] = ()) -> tuple[Matrix, Graph]:
    """Read a matrix and plan it; its checkpoints are located, and built where needed.

    Parameters
    ----------
    path, selection
        The matrix file, and the rows to take from it.
    python
        Interpreters of engines, ``ENGINE[@NAME]=PYTHON``.
    """
    matrix = select(read_matrix(path, python), selection)
    return matrix, plan(matrix)


def plan(matrix: Matrix) -> Graph:
    """Build the run graph of a matrix from the present checkpoints and code."""
    return build(matrix, _resolver(matrix))


def _resolver(matrix: Matrix) -> Callable[[Case], ModelSpec]:
    known: dict[tuple[str, str | None], ModelSpec] = {}

    def resolve(case: Case) -> ModelSpec:
        key = (case.model, case.revision)
        if key not in known:
            try:
                known[key] = models.resolve(*key)
            except ConfigError as error:
                raise ConfigError(f"{matrix.path}: model: {error}") from None
        return known[key]

    return resolve


def record(
    folder: RunFolder, executor: Executor, rows: Iterable[Row] | None = None, on_event: OnEvent | None = None
) -> None:
    """Compute the runs that a run folder still lacks.

    Parameters
    ----------
    folder
        The run folder; settled runs in it are kept.
    executor
        Computes the runs.
    rows
        Only these rows; all by default.
    on_event
        Called with each event.

    Raises
    ------
    UsageError
        If another process records into this folder.
    """
    with locks.claimed(folder.path, "recording"):
        folder.clear_scratch()
        missing = folder.missing(rows)
        folder.note("begun", missing=len(missing))
        for event in executor.execute(missing, folder.folder_of):
            _note(folder, event)
            if on_event:
                on_event(event)


def _note(folder: RunFolder, event: Event) -> None:
    """Append an event to the journal, which shows the progress of each run even after a crash."""
    if isinstance(event, Started):
        folder.note("started", run=event.spec.digest)
    elif isinstance(event, Stepped):
        folder.note("step", run=event.spec.digest, step=event.step)
    elif isinstance(event, Finished):
        folder.note("finished", run=event.run.spec.digest, outcome=event.run.outcome, wall_s=event.run.wall_s)
    elif isinstance(event, Waiting):
        folder.note("waiting", message=event.message)
    else:
        folder.note("devices", held=event.devices)


def conclude(
    folder: RunFolder,
    measurer: Measurer | None = None,
    rows: Sequence[Row] | None = None,
    complete: bool = True,
    pin: str | None = None,
    pinned: bool = True,
) -> Report:
    """Compare and judge what a run folder holds; writes nothing.

    Parameters
    ----------
    folder
        The run folder.
    measurer
        Comparisons made already; a new one by default.
    rows
        Rows to judge; all by default.
    complete
        Whether everything planned was computed.
    pin
        Present pin of the matrix file, accepted beside that of the plan.
    pinned
        Whether the golden store is checked against the pins.
    """
    matrix, runs = folder.plan.matrix, folder.runs()
    measurer = measurer or Measurer(folder)
    goldens = Goldens(folder, runs, known_digests(folder, pin) if pinned else None)
    planned = folder.plan.rows if rows is None else rows
    apart = mixed(folder.plan.specs.values(), runs)
    measurer.compare([row for row in planned if _is_comparable(row, runs, apart)], runs)
    judged = with_unverified([_concluded(row, runs, measurer, goldens, folder, apart) for row in planned])
    return Report(
        name=folder.plan.name,
        matrix=matrix,
        rows=judged,
        runs=runs,
        platform=", ".join(sorted({goldens.platform(case) for case in matrix.cases})),
        golden=folder.plan.golden,
        complete=complete,
        exit_code=_exit_code(folder, judged, complete),
        started_at=folder.plan.started_at,
        wall_s=folder.recorded_s(),
        notes=(*division_notes(folder, runs), *goldens.notes(), *folder.notes()),
        environment=_environment(runs),
        golden_dirs=goldens.folders(),
    )


def known_report(folder: RunFolder) -> Report:
    """Read a run's report, or judge anew where it does not cover the finished runs.

    The report suffices for approving, and judging anew may be impossible: a packed run holds the baselines to
    approve, and not every picture.
    """
    if (folder.path / "report.json").is_file():
        known = read_report(folder.path)
        if set(known.runs) == set(folder.runs()):
            return known
    return conclude(folder, pinned=False)


def write_reports(report: Report, folder: Path) -> dict[str, Path]:
    """Write every report format and return the file to open for each."""
    with files.naming(folder):
        return {name: plugins.load("reporters", name)().write(report, folder) for name in plugins.names("reporters")}


def _exit_code(folder: RunFolder, rows: Sequence[Row], complete: bool) -> int:
    """Return the exit code of a folder: a shard may be all skips, and missing runs are a failure of the machine."""
    code = exit_code(rows, is_part=folder.plan.shard is not None)
    return EXIT_INFRASTRUCTURE if code == EXIT_OK and not complete else code


def exit_code(rows: Sequence[Row], is_part: bool = False) -> int:
    """Return the exit code of a run: 2 before 1 before 3 before 0.

    Nothing judged is a usage error in a whole matrix, not in a part of one.
    """
    verdicts = [(row, row.verdict) for row in rows if row.verdict]
    if not is_part and all(verdict.outcome == Outcome.SKIP for _, verdict in verdicts):
        return EXIT_USAGE
    broken = [v for _, v in verdicts if v.outcome not in (Outcome.PASS, Outcome.SKIP)]
    if any(not verdict.infrastructure for verdict in broken):
        return EXIT_VERDICT
    skipped = any(v.outcome == Outcome.SKIP and row.variant.required for row, v in verdicts)
    return EXIT_INFRASTRUCTURE if broken or skipped else EXIT_OK


def _concluded(
    row: Row,
    runs: Mapping[str, Run],
    measurer: Measurer,
    goldens: Goldens,
    folder: RunFolder,
    apart: Mapping[str, str],
) -> Row:
    if _is_comparable(row, runs, apart):
        row = replace(row, comparisons=(*measurer.of_row(row, runs), *goldens.comparisons(row, measurer)))
        row = replace(row, explanation=folder.explanation(row))
    verdict = judge.judge(
        row,
        runs,
        declared=folder.plan.matrix.declared,
        approved=goldens.approved(row),
        golden_missing=row.variant.cache == "none" and goldens.is_missing(row.case),
        mixed=next((apart[digest] for digest in row.runs.values() if digest in apart), ""),
        calibration=_calibration(row, runs),
    )
    return replace(row, verdict=verdict)


def _calibration(row: Row, runs: Mapping[str, Run]) -> Calibration | None:
    """Find the calibration of a row's platform: of the package, or written here by ``sp-harness benign``."""
    baseline = runs.get(row.runs.get("baseline", ""))
    if baseline is None:
        return None
    folders = (calibration.SHIPPED, models.cache_dir() / "calibrations")
    return calibration.stored(baseline.spec.weights, row.case.device, row.case.dtype, folders)


def _is_comparable(row: Row, runs: Mapping[str, Run], apart: Mapping[str, str]) -> bool:
    """Whether all runs of a row were drawn, and on like machines."""
    drawn = (digest in runs and runs[digest].failure is None and digest not in apart for digest in row.runs.values())
    return row.skip is None and all(drawn)


def _environment(runs: Mapping[str, Run]) -> dict[str, str]:
    """Collect the versions and devices of runs; where they differ, each with the runs drawn by it."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs.values():
        for name, version in run.versions.items():
            found.setdefault(name, {}).setdefault(version, []).append(run)
    versions = {
        name: next(iter(by)) if len(by) == 1 else "; ".join(f"{version} ({_drawn_by(by[version])})" for version in by)
        for name, by in found.items()
    }
    interpreters = {f"python of {r.spec.engine_label}": r.spec.interpreter for r in runs.values() if r.spec.interpreter}
    return {
        "sp-harness": __version__,
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
        **interpreters,
    }


def _drawn_by(runs: Sequence[Run], at_most: int = 6) -> str:
    names = list(dict.fromkeys(f"{run.spec.engine_label} {run.spec.case.name}" for run in runs))
    rest = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {rest} more" if rest > 0 else "")
