"""Packing of a run: its report, the pictures of rows that do not pass, and thumbnails of the others.

A packed run can be opened, added to a history and approved, as a case without a golden, or with another picture
than approved, does not pass. A case that passes can be approved from the original run folder only.
"""

from __future__ import annotations

import shutil
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

from PIL import Image

from harness.errors import InfrastructureError, UsageError
from harness.goldens.pin import APPROVED
from harness.reporting import golden_copies
from harness.reporting.difference_index import REDUCED, Difference, DifferenceIndex, write_jpeg
from harness.runs.folder import check_recorded, read_report
from harness.runs.journal import Journal
from harness.session import steps
from harness.types import Outcome, Report, Row, Run

WHOLE = ("logs", "explained", "proposals")
"""Folders that are kept as they are; pages are made anew."""

FILES = ("plan.json", "journal.jsonl", "report.json", APPROVED)


def pack(run: Path, to: Path, reduced_px: int) -> tuple[int, int]:
    """Copy a run folder, with reduced pictures and differences of rows that pass.

    Parameters
    ----------
    run
        A run folder with its report.
    to
        Folder to create.
    reduced_px
        Longest side of a reduced picture.

    Returns
    -------
    int, int
        Number of the report's runs whose pictures and latents were kept whole, and of all its runs.

    Raises
    ------
    FileError
        If there is no report, or a file of the run is damaged.
    UsageError
        If ``to`` exists, or cannot be made.
    InfrastructureError
        If it cannot be written; it is removed then.
    """
    report = read_report(run)
    Journal.read(run)
    for drawn in report.runs.values():
        check_recorded(run, drawn)
    if not DifferenceIndex.read(run).differences:  # older version, or damaged
        steps.write_reports(report, run)
    wanted = {digest for row in report.rows if not _is_well(row) for digest in row.runs.values()}
    try:
        to.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{to}: exists already; name a new folder") from None
    except OSError as error:
        raise UsageError(f"{to}: cannot be written ({error.strerror or error})") from None
    try:
        _copy(run, to, report, wanted, reduced_px)
        steps.write_reports(report, to)
    except BaseException as error:
        shutil.rmtree(to, ignore_errors=True)  # a partial copy looks like a whole one
        if not isinstance(error, OSError | shutil.Error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InfrastructureError(f"{to}: cannot be written ({reason})") from None
    return len(wanted & report.runs.keys()), len(report.runs)


def _copy(run: Path, to: Path, report: Report, wanted: Set[str], reduced_px: int) -> None:
    for name in FILES:
        if (run / name).is_file():
            shutil.copy2(run / name, to / name)
    for name in WHOLE:
        if (run / name).is_dir():
            shutil.copytree(run / name, to / name)
    for digest, drawn in report.runs.items():
        if digest in wanted and (run / "runs" / digest).is_dir():
            shutil.copytree(run / "runs" / digest, to / "runs" / digest)
        else:
            _copy_reduced(drawn, run / "runs" / digest, to / "runs" / digest, reduced_px)
    _copy_differences(run, to, wanted, reduced_px)
    _copy_goldens(run, to, report, reduced_px)


def _is_well(row: Row) -> bool:
    return row.verdict is not None and row.verdict.outcome in (Outcome.PASS, Outcome.SKIP)


def _copy_reduced(drawn: Run, source: Path, target: Path, longest_px: int) -> None:
    """Copy a run's description, and thumbnails of its pictures."""
    if not (source / "run.json").is_file():
        return
    target.mkdir(parents=True)
    shutil.copy2(source / "run.json", target / "run.json")
    for name in drawn.images:
        reduced = Path(name).stem + REDUCED  # already the name where the run was packed before
        found = next((path for path in (source / name, source / reduced) if path.is_file()), None)
        if found is not None:
            _reduce(found, target / reduced, longest_px)


def _copy_differences(run: Path, to: Path, wanted: Set[str], longest_px: int) -> None:
    """Reduce the difference pictures of rows that pass; the others are drawn anew from the pictures kept."""
    kept: dict[str, Difference] = {}
    for stem, found in DifferenceIndex.read(run).differences.items():
        if set(stem.split("-")[:2]) <= wanted:
            continue
        if found.file is None:
            kept[stem] = found
            continue
        file = found.file.removesuffix(REDUCED).removesuffix(".jpg") + REDUCED
        if size_px := _reduce(run / found.file, to / file, longest_px):
            kept[stem] = replace(found, file=file, size_px=size_px)
    DifferenceIndex(kept).write(to)


def _copy_goldens(run: Path, to: Path, report: Report, longest_px: int) -> None:
    """Copy the report's copies of goldens, reduced where all rows of a case pass."""
    kept = {row.case for row in report.rows if not _is_well(row)}
    for case in {row.case: None for row in report.rows}:
        for index in range(case.num_images):
            whole = run / golden_copies.FOLDER / f"{golden_copies.stem_of(case, index)}.png"
            reduced = whole.with_name(whole.stem + REDUCED)
            for source in (whole, reduced):
                if source.is_file():
                    target = to / golden_copies.FOLDER / (source.name if case in kept else reduced.name)
                    target.parent.mkdir(exist_ok=True)
                    if case in kept:
                        shutil.copy2(source, target)
                    else:
                        _reduce(source, target, longest_px)


def _reduce(source: Path, target: Path, longest_px: int) -> tuple[int, int] | None:
    """Write a reduced picture and return its size; ``None`` where it is missing or unreadable."""
    try:
        with Image.open(source) as image:
            image.thumbnail((longest_px, longest_px))
            picture = image.convert("RGB")
    except (OSError, ValueError):
        return None
    write_jpeg(picture, target)
    return picture.size
