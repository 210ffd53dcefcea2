"""Cutting latents in native geometry, and putting the shards together again.

Height and width are the last two dimensions of every latent tensor here, whatever stands before
them: ``B,C,H,W``, ``B,C,F,H,W`` or a trajectory ``B,T,C,F,H,W``. One image token covers 2x2 latent
cells, so a plan's tokens are doubled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from harness.types import ShardPlan

CELLS_PER_TOKEN = 2
"""Latent cells along one side of an image token (the DiT's patch size)."""


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that share one picture; ``handle`` is ``None`` on a single device."""

    rank: int = 0
    size: int = 1
    handle: dist.ProcessGroup | None = None


def shard_dim(plan: ShardPlan) -> int:
    """Dimension of a latent tensor that the plan cuts."""
    return -2 if plan.axis == "h" else -1


def cut(latents: torch.Tensor, plan: ShardPlan, rank: int) -> torch.Tensor:
    """Return this rank's part of full latents (``..., H, W``), contiguous."""
    start = plan.origins[rank] * CELLS_PER_TOKEN
    return latents.narrow(shard_dim(plan), start, plan.shard_tokens[rank] * CELLS_PER_TOKEN).contiguous()


def gather(local: torch.Tensor, plan: ShardPlan, group: SequenceGroup) -> torch.Tensor:
    """Return the full latents on every rank.

    Collectives want equal sizes: every shard is padded to the longest, gathered, cropped to its true
    size, and the crops are concatenated in the order of the ranks.

    Parameters
    ----------
    local
        This rank's part, ``..., H, W``, contiguous or not.
    plan
        The plan that the request was cut by; never one of another request.
    group
        The ranks that hold the parts.
    """
    if group.size == 1:
        return local
    dim = shard_dim(plan)
    longest = max(plan.shard_tokens) * CELLS_PER_TOKEN
    padded = pad_to(local, dim, longest).contiguous()
    parts = [torch.empty_like(padded) for _ in range(group.size)]
    dist.all_gather(parts, padded, group=group.handle)
    return torch.cat([crop(parts[rank], plan, rank) for rank in gather_order(group)], dim=dim)


def pad_to(local: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    """Append zeros along ``dim`` up to ``length``."""
    missing = length - local.shape[dim]
    if not missing:
        return local
    shape = list(local.shape)
    shape[dim] = missing
    return torch.cat([local, local.new_zeros(shape)], dim=dim)


def crop(part: torch.Tensor, plan: ShardPlan, rank: int) -> torch.Tensor:
    """Take the padding of :func:`pad_to` off the part of one rank."""
    return part.narrow(shard_dim(plan), 0, plan.shard_tokens[rank] * CELLS_PER_TOKEN)


def gather_order(group: SequenceGroup) -> range | list[int]:
    """Ranks in the order in which their parts follow each other in the picture."""
    return range(group.size)
