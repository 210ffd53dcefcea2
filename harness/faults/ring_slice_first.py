"""Where every rank computes the full sequence (ring), each keeps the slice of the first rank instead of its own.

Which layers see a full sequence is what that change mended.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._planting import instead_of
from harness.types import Worker


class RingSliceFirst:
    """The first part of the picture is drawn once for each rank."""

    name: ClassVar[str] = "ring-slice-first"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/pull/25305"
    cause: ClassVar[str] = "cut/gather"
    needs: ClassVar[tuple[str, ...]] = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Start every rank's slice at the first token."""
        from harness.spatial import transformer

        return instead_of(
            worker,
            transformer,
            "own_tokens",
            lambda stock, unified, plan, rank, full: stock(unified, plan, rank, False),
        )
