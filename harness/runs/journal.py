"""Journal of a run: one JSON object for each event, with its time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """Events of ``journal.jsonl`` in order, as they are written: at least ``time`` and ``event``."""

    events: tuple[Mapping[str, Any], ...] = ()
    num_damaged: int = 0
    """Lines that are no event, apart from a last one that was cut short when its writer was killed."""

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Read the journal of a run folder; empty where there is none."""
        try:
            lines = (folder / "journal.jsonl").read_bytes().split(b"\n")
        except OSError:
            return cls()
        events = [_event(line) for line in lines[:-1] if line.strip()]
        return cls(tuple(event for event in events if event is not None), events.count(None))

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


def _event(line: bytes) -> Mapping[str, Any] | None:
    try:
        event = json.loads(line)
        valid = isinstance(event["event"], str) and math.isfinite(event["time"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # ValueError also of no UTF-8
        return None
    return event if valid and isinstance(event, dict) else None
