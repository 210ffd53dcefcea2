"""Nights on disk: found in run folders and kept reports, appended to ``history.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness import codec
from harness.errors import FileError, UsageError
from harness.history.night import SCHEMA as NIGHT_SCHEMA
from harness.history.night import Night, night_of
from harness.types import SCHEMA, Report

HISTORY = "history.jsonl"
NO_REPORTS_IN = {"runs", "logs", "diffs", "assets", "golden", "proposals", "explained"}
"""Folders of a run that hold no report; there may be thousands of files in them."""


def read(paths: Sequence[Path], kept: Path) -> tuple[list[Night], list[str]]:
    """Gather nights from reports and from lines of earlier days, in the order in which they began.

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
        The nights, and a line for each file that says nothing: damaged, or of a newer schema.

    Raises
    ------
    UsageError
        If a path does not exist, or there is no night at all.
    """
    nights: dict[tuple[str, str], Night] = {}
    problems: list[str] = []
    files = [file for file in _files(paths) if not (kept.is_file() and file.samefile(kept))]
    files.sort(key=lambda file: file.suffix != ".jsonl")
    for file in [*([kept] if kept.is_file() else []), *files]:
        found, wrong = lines(file) if file.suffix == ".jsonl" else _report(file)
        nights.update((night.key, night) for night in found)
        problems += wrong
    if not nights:
        reason = f" ({'; '.join(problems)})" if problems else ""
        raise UsageError(f"{', '.join(map(str, paths))}: no judged run is there{reason}; make one with: sp-harness run")
    return sorted(nights.values(), key=lambda night: (night.started_at, night.run)), problems


def keep(kept: Path, nights: Iterable[Night]) -> int:
    """Append the nights that a ``history.jsonl`` does not have, or has otherwise; returns how many."""
    known = {night.key: night for night in lines(kept)[0]} if kept.is_file() else {}
    new = [night for night in nights if known.get(night.key) != night]
    if new:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torn = kept.is_file() and not kept.read_bytes().endswith(b"\n") and kept.stat().st_size > 0
        text = "".join(json.dumps(codec.encode(night), separators=(",", ":"), allow_nan=False) + "\n" for night in new)
        with kept.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + text)
    return len(new)


def lines(path: Path) -> tuple[list[Night], list[str]]:
    """Read a ``history.jsonl``; of a night that was judged again the later line counts."""
    nights: dict[tuple[str, str], Night] = {}
    problems = []
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror})"]
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            night = codec.parse_json(text, f"{path}:{number}", Night, NIGHT_SCHEMA)
        except FileError as error:
            problems.append(str(error))
        else:
            nights[night.key] = night
    return list(nights.values()), problems


def newest_run(path: Path) -> Path | None:
    """Of a run folder itself, or of a folder of runs, the one whose report says that it began last."""
    found = [(night.started_at, file.parent) for file in _reports(path) for night in _report(file)[0]]
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


def _report(path: Path) -> tuple[list[Night], list[str]]:
    try:
        return [night_of(codec.read_json(path, Report, SCHEMA))], []
    except FileError as error:
        return [], [str(error)]
