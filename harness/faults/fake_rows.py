"""Shorter shards are equalised by repeating their last line, which then takes part in attention as if it were real.

A band along the edge showed it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of, together
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

        return together(
            instead_of(worker, SpatialTransformer, "prepare", _equalise),
            instead_of(worker, SpatialTransformer, "forward", _repeat_line),
        )


def _equalise(stock: Any, transformer: Any, captions: Any, plan: ShardPlan) -> Any:
    ranks, longest = len(plan.shard_tokens), max(plan.shard_tokens)
    equal = replace(plan, shard_tokens=(longest,) * ranks, local_tokens=(max(plan.local_tokens),) * ranks)
    return stock(transformer, captions, equal)


def _repeat_line(stock: Any, transformer: Any, latents: Any, timestep: Any, conditions: Any) -> Any:
    import torch

    from harness.spatial.shard import CELLS_PER_TOKEN, shard_dim

    plan, dim = conditions.plan, shard_dim(conditions.plan)
    length = latents.shape[dim]
    line = latents.narrow(dim, length - CELLS_PER_TOKEN, CELLS_PER_TOKEN)
    missing = max(plan.shard_tokens) - length // CELLS_PER_TOKEN
    return stock(transformer, torch.cat([latents] + [line] * missing, dim=dim), timestep, conditions).narrow(
        dim, 0, length
    )
