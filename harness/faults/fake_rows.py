"""Shorter shards are equalised by repeating their last line, which then takes part in attention as if it were real.

A band along the edge showed it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import ShardPlan


class FakeRows(Fault):
    """An image token too many for each line that a rank lacks."""

    name = "fake-rows"
    source = "https://github.com/sgl-project/sglang/pull/21042"
    cause = "cut/gather"
    needs = ("shards: uneven", "pads: as on one device")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Repeat the last line where a shard is shorter than the longest, and drop it from the prediction."""
        from harness.spatial.transformer import SpatialTransformer

        return instead_of(worker, SpatialTransformer, "forward", _equalise)


def _equalise(stock: Any, transformer: Any, latents: Any, timestep: Any, captions: Any, plan: ShardPlan) -> Any:
    import torch

    from harness.spatial.shard import CELLS_PER_TOKEN, shard_dim

    rank, dim, longest = transformer.group.whole.rank, shard_dim(plan), max(plan.shard_tokens)
    line = latents.narrow(dim, latents.shape[dim] - CELLS_PER_TOKEN, CELLS_PER_TOKEN)
    grown = torch.cat([latents] + [line] * (longest - plan.shard_tokens[rank]), dim=dim)
    ranks = len(plan.shard_tokens)
    equal = replace(plan, shard_tokens=(longest,) * ranks, local_tokens=(max(plan.local_tokens),) * ranks)
    return stock(transformer, grown, timestep, captions, equal).narrow(dim, 0, latents.shape[dim])
