"""Landscapes are laid on their side before they are cut, and the positions do not follow.

The pictures came out scrambled, landscape ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import ShardPlan


class LandscapeTransposed(Fault):
    """Tokens that stand row by row get the positions of columns."""

    name = "landscape-transposed"
    source = "https://github.com/sgl-project/sglang/pull/21042"
    cause = "position"
    needs = ("orientation: landscape",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Number the tokens of a landscape's shards column by column."""
        from harness.spatial import transformer

        return instead_of(worker, transformer, "image_positions", _number_by_columns)


def _number_by_columns(stock: Any, plan: ShardPlan, ranks: Sequence[int], frames: Sequence[int]) -> Any:
    positions, start = stock(plan, ranks, frames), 0
    along, across = sum(plan.shard_tokens), plan.local_tokens[0] // plan.shard_tokens[0]
    landscape = along < across if plan.axis == "h" else across < along
    for rank in ranks if landscape else ():
        own = slice(start, start + plan.local_tokens[rank])
        positions[:, own] = positions[:, own].unflatten(1, plan.grid(rank)).transpose(1, 2).flatten(1, 2)
        start += plan.sequence_lengths[rank]
    return positions
