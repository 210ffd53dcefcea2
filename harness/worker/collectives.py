"""Timeout of collectives, and the collective a rank waits in, read from torch's flight recorder.

A stack alone does not show it on a GPU: there a rank queues its collectives, goes on, and waits much later
for the device.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

PATIENCE = timedelta(days=1)
"""Timeout of every process group: the harness limits the time itself, and collects stacks before it kills."""
FRAMES = 6
"""Callers reported of a collective, the innermost first."""


def unfinished() -> str:
    """The oldest collective of this process that has not ended, where it was called, and how many queue behind it.

    Returns
    -------
    str
        Empty where there is none, or torch keeps no record. Safe to call from another thread than the one
        that waits.
    """
    torch = sys.modules.get("torch")
    c10d = getattr(getattr(torch, "_C", None), "_distributed_c10d", None)
    entries = []
    for name in ("_dump_nccl_trace", "_dump_fr_trace"):  # the second, of newer torch, records gloo as well
        if dump := getattr(c10d, name, None):
            record = pickle.loads(dump(includeCollectives=True, includeStackTraces=True, onlyActive=True))
            entries += [entry for entry in record.get("entries", ()) if not entry.get("retired")]
    if not entries:
        return ""
    first, behind = min(entries, key=lambda entry: entry["time_created_ns"]), len(entries) - 1
    queued = f", and {behind} more queued behind it" if behind else ""
    return "\n".join([f"has not finished {_describe(first)}{queued}", *_callers(first)])


def _describe(entry: Mapping[str, Any]) -> str:
    sizes = " ".join("x".join(map(str, size)) for size in entry.get("input_sizes", ()))
    dtypes = " ".join(dict.fromkeys(entry.get("input_dtypes", ())))
    return f"{entry.get('profiling_name')} number {entry.get('collective_seq_id')} ({dtypes} {sizes})"


def _callers(entry: Mapping[str, Any]) -> list[str]:
    own = Path(__file__).parents[1]
    called = [frame for frame in entry.get("frames", ()) if Path(frame["filename"]).is_relative_to(own)]
    frames = called or entry.get("frames", ())  # an engine from elsewhere
    return [f'  File "{frame["filename"]}", line {frame["line"]} in {frame["name"]}' for frame in frames[:FRAMES]]
