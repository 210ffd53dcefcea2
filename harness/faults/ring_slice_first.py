"""Every rank of a ring, which computes the full sequence, keeps the first rank's slice instead of its own.

Which layers see a full sequence is what that change mended.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class RingSliceFirst(Fault):
    """The first part of the picture is drawn once for each rank."""

    name = "ring-slice-first"
    source = "https://github.com/sgl-project/sglang/pull/25305"
    cause = "cut/gather"
    needs = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Start every rank's slice at the first token."""
        from harness.spatial import transformer

        return instead_of(
            worker,
            transformer,
            "own_tokens",
            lambda stock, unified, plan, rank, full: stock(unified, plan, rank, False),
        )
