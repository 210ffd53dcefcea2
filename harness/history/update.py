"""Update of a history: what is new is appended, changes are found, and pages written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.files import write_text, writing
from harness.history import files, page, words
from harness.history.changes import Changes, Limits, changes
from harness.history.entry import Entry
from harness.history.nights import comparable


@dataclass(frozen=True)
class Update:
    """Result of an update."""

    changes: tuple[Changes, ...]
    """Of each matrix."""
    problems: tuple[str, ...]
    """Why a file was left out, a line each."""
    num_new: int
    num_runs: int
    kept: Path
    """File with a line for each run."""
    index: Path
    """Page to open."""


def update(paths: Sequence[Path], out: Path, limits: Limits) -> Update:
    """Append what is new to ``history.jsonl``, compare entries, and write the pages.

    Parameters
    ----------
    paths
        Run folders, ``report.json`` files, or folders of them.
    out
        Folder of the history.
    limits
        Differences that are told.

    Raises
    ------
    UsageError
        If no judged run is there, or ``out`` cannot be written.
    """
    kept = out / files.HISTORY
    entries, problems = files.read(paths, kept)
    told = [(changes(its, limits), its) for its in _by_matrix(entries)]
    with writing(out, "name another folder with --out"):
        num_new = files.keep(kept, entries)
        index = page.write([page.trend(its, one) for one, its in told], out)
        write_text(out / "summary.md", words.markdown(told, problems))
    return Update(tuple(one for one, _ in told), tuple(problems), num_new, len(entries), kept, index)


def _by_matrix(entries: Sequence[Entry]) -> list[list[Entry]]:
    matrices: dict[str, list[Entry]] = {}
    for entry in entries:
        matrices.setdefault(entry.matrix, []).append(entry)
    return [comparable(its) for its in matrices.values()]
