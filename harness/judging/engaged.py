"""Whether ranks shared a picture at all: an engine that fell back to one device draws the right one."""

from __future__ import annotations

from collections.abc import Mapping

from harness.types import Row, Run

COUNTERS = ("collective_bytes", "exchanged_bytes")
"""Counted by the rank around torch.distributed, and by engines that know their own traffic."""
BYTES_PER_TOKEN = 2
"""The least that any exchange sends: one half-precision value for each image token, once."""


def problem(row: Row, runs: Mapping[str, Run]) -> str | None:
    """Say that the ranks of a row's candidate exchanged nothing; ``None`` where they did or nobody counted."""
    run = runs.get(row.runs.get("candidate", ""))
    if run is None or row.variant.degree == 1:
        return None
    counted = [run.counters[name] for name in COUNTERS if name in run.counters]
    least = BYTES_PER_TOKEN * row.case.size.tokens * row.case.num_images
    if not counted or max(counted) >= least:
        return None
    return (
        f"Nothing was split: the {row.variant.degree} ranks sent one another {max(counted)} bytes, less than one value "
        f"for each of {row.case.size.tokens} image tokens. {row.variant.engine} drew on one device, whatever the row "
        "asked for."
    )
