"""The image is placed behind this rank's share of the caption instead of the whole one.

The whole picture drifted, without a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CaptionOffsetLocal(Fault):
    """All image tokens stand some frames too early."""

    name = "caption-offset-local"
    source = "https://github.com/sgl-project/sglang/pull/20679"
    cause = "position"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Divide the caption's length by the ranks."""
        from harness.spatial import transformer

        def place(stock: Any, plan: Any, ranks: Any, frames: Sequence[int]) -> Any:
            return stock(plan, ranks, [(frame - 1) // worker.world_size + 1 for frame in frames])

        return instead_of(worker, transformer, "image_positions", place)
