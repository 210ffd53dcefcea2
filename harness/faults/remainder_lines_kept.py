"""Lines of tokens that do not divide by the ranks belong to none of them, and keep their noise.

The real remainder was lost, and the shape of what came back did not fit; here the noise fills its place.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case, ShardPlan


class RemainderLinesKept(Fault):
    """The picture ends in a line of noise that no other token has met."""

    name = "remainder-lines-kept"
    source = "https://github.com/ByteDance-Seed/VeOmni/pull/1139"
    cause = "cut/gather"
    needs = ("shards: uneven",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Cut equal shards, and put the rest of the noise behind what is gathered."""
        from harness.spatial.pipeline import SpatialPipeline

        return instead_of(worker, SpatialPipeline, "_denoise", _denoise_equal_shards)


def _denoise_equal_shards(stock: Any, pipeline: Any, case: Case, plan: ShardPlan, *rest: Any) -> Any:
    import torch

    from harness.spatial.shard import shard_dim

    trajectory, steps_s = stock(pipeline, case, _without_remainder(plan), *rest)
    noise, dim = pipeline._noise(case), shard_dim(plan)
    done = trajectory.shape[dim]
    kept = noise.narrow(dim, done, noise.shape[dim] - done).expand(len(trajectory), *[-1] * noise.dim())
    return torch.cat([trajectory, kept], dim=dim), steps_s


def _without_remainder(plan: ShardPlan) -> ShardPlan:
    """The same pads on every rank, and the same number of lines."""
    ranks = len(plan.shard_tokens)
    along = sum(plan.shard_tokens) // ranks
    own = along * (plan.local_tokens[0] // plan.shard_tokens[0])
    lengths = [length - tokens + own for length, tokens in zip(plan.sequence_lengths, plan.local_tokens, strict=True)]
    return replace(plan, shard_tokens=(along,) * ranks, local_tokens=(own,) * ranks, sequence_lengths=tuple(lengths))
