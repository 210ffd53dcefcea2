"""Every shard but the first begins one line of tokens too early, so that the line at the border is drawn twice.

The real one equalised uneven shards with lines of their neighbours: an error of one line at the border.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class TokenRowShifted(Fault):
    """A line of the picture is there twice and its last one is missing."""

    name = "token-row-shifted"
    source = "https://github.com/sgl-project/sglang/pull/21042"
    cause = "cut/gather"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Cut one row or column before the shard's own origin."""
        from harness.spatial import shard

        return instead_of(worker, shard, "cut", _cut_early)


def _cut_early(stock: Any, latents: Any, plan: Any, rank: int) -> Any:
    from harness.spatial.shard import CELLS_PER_TOKEN, shard_dim

    first = max(0, plan.origins[rank] - 1) * CELLS_PER_TOKEN
    return latents.narrow(shard_dim(plan), first, plan.shard_tokens[rank] * CELLS_PER_TOKEN).contiguous()
