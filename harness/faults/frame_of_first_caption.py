"""One caption length serves the whole batch: every image is placed behind the first caption's end.

The text length was not passed on; it shows where captions of one batch differ in length, as with guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class FrameOfFirstCaption(Fault):
    """Images of other caption lengths stand at the wrong frame."""

    name = "frame-of-first-caption"
    source = "https://github.com/vllm-project/vllm-omni/issues/5121"
    cause = "position"
    needs = ("guidance", "captions of a batch: different buckets")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Give all images the first one's frame."""
        from harness.spatial import transformer

        def place(stock: Any, plan: Any, ranks: Any, frames: Sequence[int]) -> Any:
            return stock(plan, ranks, [frames[0]] * len(frames))

        return instead_of(worker, transformer, "image_positions", place)
