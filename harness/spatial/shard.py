"""Cutting latents in native geometry, and putting shards together again.

Height and width are the last two dimensions of every latent tensor here, whatever stands before
them: ``B,C,H,W``, ``B,C,F,H,W`` or a trajectory ``B,T,C,F,H,W``. One image token covers 2x2 latent
cells, so a plan's tokens are doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.spatial.group import Group, all_gather
from harness.types import ShardPlan

CELLS_PER_TOKEN = 2
"""Latent cells along one side of an image token (the DiT's patch size)."""


def shard_dim(plan: ShardPlan) -> int:
    """Dimension of a latent tensor that the plan cuts."""
    return -2 if plan.axis == "h" else -1


def cut(latents: torch.Tensor, plan: ShardPlan, rank: int) -> torch.Tensor:
    """Return this rank's part of full latents (``..., H, W``), contiguous."""
    start = plan.origins[rank] * CELLS_PER_TOKEN
    return latents.narrow(shard_dim(plan), start, plan.shard_tokens[rank] * CELLS_PER_TOKEN).contiguous()


def gather(local: torch.Tensor, plan: ShardPlan, group: Group) -> torch.Tensor:
    """Return the full latents on every rank.

    Parameters
    ----------
    local
        This rank's part, ``..., H, W``, contiguous or not.
    plan
        The plan that the request was cut by; never one of another request.
    group
        The ranks that hold the parts.
    """
    lengths = [tokens * CELLS_PER_TOKEN for tokens in plan.shard_tokens]
    return gather_uneven(local, shard_dim(plan), lengths, group)


def gather_uneven(local: torch.Tensor, dim: int, lengths: Sequence[int], group: Group) -> torch.Tensor:
    """Gather parts of different lengths along ``dim``.

    Collectives want equal sizes: every part is padded to the longest, gathered, cropped to its true
    length, and the crops are concatenated in the order of the ranks.
    """
    if group.size == 1:
        return local
    parts = all_gather(pad_to(local, dim, max(lengths)), group)
    return torch.cat([crop(parts[rank], dim, lengths[rank]) for rank in gather_order(group)], dim=dim)


def pad_to(local: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    """Append zeros along ``dim`` up to ``length``."""
    missing = length - local.shape[dim]
    if not missing:
        return local
    shape = list(local.shape)
    shape[dim] = missing
    return torch.cat([local, local.new_zeros(shape)], dim=dim)


def crop(part: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    """Take the padding of :func:`pad_to` off again."""
    return part.narrow(dim, 0, length)


def gather_order(group: Group) -> range | list[int]:
    """Ranks in the order in which their parts follow each other in the picture."""
    return range(group.size)
