"""One rank has loaded other weights than its peers.

In the thread it is pad tokens, which no checkpoint held; here a layer's feed-forward, on the last rank.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from harness.faults._planting import instead_of, is_last, other_parameter
from harness.plugins import Fault, Worker


class RankWithOtherWeights(Fault):
    """The parts of the picture are drawn by different models."""

    name = "rank-with-other-weights"
    source = "https://github.com/huggingface/diffusers/pull/13805"
    cause = "weights"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Move the rows of a matrix of the second main layer by one."""
        from harness.spatial.transformer import SpatialBlock

        return instead_of(worker, SpatialBlock, "forward", _run) if is_last(worker) else nullcontext()


def _run(stock: Any, block: Any, *arguments: Any, **options: Any) -> Any:
    if not block.block.modulation or block.block.layer_id != 1:
        return stock(block, *arguments, **options)
    with other_parameter(block.block.feed_forward.w1, "weight", lambda weight: weight.roll(1, 0)):
        return stock(block, *arguments, **options)
