"""Entries on disk: read from run folders and reports, appended to ``history.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import codec
from harness.errors import FileError, UsageError
from harness.history.entry import SCHEMA as ENTRY_SCHEMA
from harness.history.entry import Entry, entry_of, unreported
from harness.types import SCHEMA, Report

HISTORY = "history.jsonl"
NO_REPORTS_IN = {"runs", "logs", "diffs", "assets", "golden", "proposals", "explained"}
"""Folders of a run that hold no report; there may be thousands of files in them."""


def read(paths: Sequence[Path], kept: Path) -> tuple[list[Entry], list[str]]:
    """Read entries from reports and ``history.jsonl`` files, ordered by start time.

    A report counts before every line of its run, wherever the two lie: it may have been judged again since.

    Parameters
    ----------
    paths
        Run folders, ``report.json`` or ``history.jsonl`` files, or folders that hold such somewhere.
    kept
        The ``history.jsonl`` that grows; it need not exist.

    Returns
    -------
    list, list
        The entries, and a line for each file that cannot be used: damaged, or of a newer schema.

    Raises
    ------
    UsageError
        If a path does not exist, or no judged run is found.
    """
    entries: dict[tuple[str, str], Entry] = {}
    problems: list[str] = []
    files = [file for file in _files(paths) if not (kept.is_file() and file.samefile(kept))]
    files.sort(key=lambda file: file.suffix != ".jsonl")
    for file in [*([kept] if kept.is_file() else []), *files]:
        found, wrong = lines(file) if file.suffix == ".jsonl" else _report(file)
        entries.update((entry.key, entry) for entry in found)
        problems += wrong
    if not entries:
        reason = f" ({'; '.join(problems)})" if problems else ""
        raise UsageError(f"{', '.join(map(str, paths))}: no judged run is there{reason}; make one with: sp-harness run")
    judged = {(entry.matrix, entry.run) for entry in entries.values() if entry.has_report}
    lost = [_unreported(folder) for path in paths if path.is_dir() for folder in _planned(path)]
    entries = {entry.key: entry for entry in lost if entry is not None} | entries
    found = [entry for entry in entries.values() if entry.has_report or (entry.matrix, entry.run) not in judged]
    return sorted(found, key=lambda entry: (entry.started_at, entry.run)), problems


def keep(kept: Path, entries: Iterable[Entry]) -> int:
    """Append entries that are new to a ``history.jsonl`` or differ from its lines; return their number."""
    known = {entry.key: entry for entry in lines(kept)[0]} if kept.is_file() else {}
    new = [entry for entry in entries if known.get(entry.key) != entry]
    if new:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torn = kept.is_file() and not kept.read_bytes().endswith(b"\n") and kept.stat().st_size > 0
        text = "".join(json.dumps(codec.encode(entry), separators=(",", ":"), allow_nan=False) + "\n" for entry in new)
        with kept.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + text)
    return len(new)


def lines(path: Path) -> tuple[list[Entry], list[str]]:
    """Read a ``history.jsonl``; the later line of a run that was judged again counts."""
    entries: dict[tuple[str, str], Entry] = {}
    problems = []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror})"]
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            entry = codec.parse_json(text, f"{path}:{number}", Entry, ENTRY_SCHEMA)
        except FileError as error:
            problems.append(str(error))
        else:
            entries[entry.key] = entry
    return list(entries.values()), problems


def newest_run(path: Path) -> Path | None:
    """Find the run with the latest start time in a run folder or a folder of runs."""
    found = [(entry.started_at, file.parent) for file in _reports(path) for entry in _report(file)[0]]
    return max(found)[1] if found else None


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        elif (path / "report.json").is_file():
            yield path / "report.json"
        elif path.is_dir():
            yield from _reports(path)
            yield from sorted(path.rglob(HISTORY))
            yield from sorted(path.glob("*.json"))
        else:
            raise UsageError(f"{path}: does not exist; name run folders, report.json files, or a folder of them")


def _reports(path: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(path):
        names[:] = sorted(set(names) - NO_REPORTS_IN) if "report.json" in files else sorted(names)
        if "report.json" in files:
            yield Path(folder) / "report.json"


def _planned(path: Path) -> Iterator[Path]:
    """Yield the run folders right below a folder that hold a plan and no report."""
    yield from (plan.parent for plan in sorted(path.glob("*/plan.json")) if not plan.with_name("report.json").exists())


def _unreported(run: Path) -> Entry | None:
    """Return the entry of a run without a report, at the time in its name; ``None`` where there is none."""
    try:
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
        started = datetime.strptime("-".join(run.name.split("-")[-2:]), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        return unreported(run.name, str(plan["matrix"]["name"]), started.isoformat(timespec="seconds"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _report(path: Path) -> tuple[list[Entry], list[str]]:
    try:
        return [entry_of(codec.read_json(path, Report, SCHEMA))], []
    except FileError as error:
        return [], [str(error)]
