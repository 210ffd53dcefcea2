"""In one layer of one rank, eight tokens have the positions of their neighbours.

A small stand-in for offsets that are wrong at a border only; no whole-picture figure sees it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from harness.faults._planting import instead_of, is_last
from harness.plugins import Fault, Worker


class RopeEightTokens(Fault):
    """The faintest bug: few tokens, one layer."""

    name = "rope-eight-tokens"
    source = "https://github.com/sgl-project/sglang/pull/20679"
    cause = "position"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Shift eight positions by one, in the second main layer of the last rank."""
        from harness.spatial.transformer import SpatialBlock

        return instead_of(worker, SpatialBlock, "forward", _shift_eight) if is_last(worker) else nullcontext()


def _shift_eight(stock: Any, block: Any, x: Any, freqs: Any, *rest: Any, **options: Any) -> Any:
    if block.block.modulation and block.block.layer_id == 1:
        freqs = freqs.clone()
        freqs[:, :8] = freqs[:, :8].roll(1, dims=1)
    return stock(block, x, freqs, *rest, **options)
