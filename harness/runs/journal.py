"""Journal of a run: one JSON object for each event, with its time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import FileError

NAME = "journal.jsonl"


@dataclass(frozen=True)
class Journal:
    """Events of ``journal.jsonl`` in order, as they are written: at least ``time`` and ``event``."""

    events: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Read the journal of a run folder; empty where there is none.

        A last line that was cut short, as its writer was killed, is left out.

        Raises
        ------
        FileError
            If another line is no event.
        """
        events = []
        for number, line in enumerate(_lines(folder), 1):
            if (event := _event(line)) is None:
                raise FileError(
                    f"{folder / NAME}: line {number} is no event; remove that line, or have it removed by: "
                    f"sp-harness run --resume {folder}"
                )
            events.append(event)
        return cls(tuple(events))

    def recorded_s(self) -> float:
        """Sum the seconds spent recording, over all sessions, without measuring after them."""
        seconds, last = 0.0, None
        for event in self.events:
            if event["event"] == "measured":  # left by earlier versions, after recording
                continue
            if event["event"] != "begun" and last is not None:
                seconds += event["time"] - last
            last = event["time"]
        return round(seconds, 2)


def append(folder: Path, event: Mapping[str, object], durable: bool) -> None:
    """Append an event; what was cut short before, as its writer was killed, is removed.

    Parameters
    ----------
    folder
        The run folder.
    event
        Its fields.
    durable
        Return only once the line is on disk. What it speaks of has to be there before.
    """
    path = folder / NAME
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size and file.seek(size - 1) and file.read(1) != b"\n":
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(json.dumps(event).encode() + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())
            if not size:
                files.sync(folder)


def mend(folder: Path) -> Sequence[int]:
    """Remove lines that are no events, and return their numbers."""
    lines = _lines(folder)
    damaged = [number for number, line in enumerate(lines, 1) if _event(line) is None]
    if damaged:
        kept = [line + b"\n" for number, line in enumerate(lines, 1) if number not in damaged]
        files.write_bytes(folder / NAME, b"".join(kept), durable=True)
    return damaged


def _lines(folder: Path) -> list[bytes]:
    """Whole lines; empty where there is no journal."""
    try:
        return (folder / NAME).read_bytes().split(b"\n")[:-1]
    except OSError:
        return []


def _event(line: bytes) -> Mapping[str, Any] | None:
    try:
        event = json.loads(line)
        valid = isinstance(event["event"], str) and math.isfinite(event["time"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # ValueError also of no UTF-8
        return None
    return event if valid and isinstance(event, dict) else None
