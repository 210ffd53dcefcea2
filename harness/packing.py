"""A run small enough to be kept: its report, and the pictures of the rows that do not pass alone.

What is left can be opened, counted in a history and approved: a case without a golden does not pass, and
neither does one that was not drawn as approved. A case that passes is approved from the whole run folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import session
from harness.errors import UsageError
from harness.record import read_report
from harness.run_goldens import APPROVED
from harness.types import Outcome, Row

WHOLE = ("logs", "explained", "proposals")
"""Folders that are kept as they are; pages and differences are made anew of what is left."""

FILES = ("plan.json", "journal.jsonl", "report.json", APPROVED)


def pack(run: Path, to: Path) -> tuple[int, int]:
    """Copy a run folder without the pictures and latents of rows that pass.

    Parameters
    ----------
    run
        A run folder with its report.
    to
        Folder to be made.

    Returns
    -------
    int, int
        How many of the report's runs kept their pictures, and how many there are.

    Raises
    ------
    FileError
        If there is no report.
    UsageError
        If ``to`` exists, or cannot be written.
    """
    report = read_report(run)
    wanted = {digest for row in report.rows if not _is_well(row) for digest in row.runs.values()}
    try:
        to.mkdir(parents=True)
        for name in FILES:
            if (run / name).is_file():
                shutil.copy2(run / name, to / name)
        for name in WHOLE:
            if (run / name).is_dir():
                shutil.copytree(run / name, to / name)
        for digest in report.runs:
            _copy(run / "runs" / digest, to / "runs" / digest, whole=digest in wanted)
        session.write_reports(report, to)
    except FileExistsError:
        raise UsageError(f"{to}: exists already; name a new folder") from None
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{to}: cannot be written ({reason})") from None
    return len(wanted & report.runs.keys()), len(report.runs)


def _is_well(row: Row) -> bool:
    return row.verdict is not None and row.verdict.outcome in (Outcome.PASS, Outcome.SKIP)


def _copy(source: Path, target: Path, whole: bool) -> None:
    """Copy what a run left, or its description alone."""
    if whole and source.is_dir():
        shutil.copytree(source, target)
    elif (source / "run.json").is_file():
        target.mkdir(parents=True)
        shutil.copy2(source / "run.json", target / "run.json")
