"""Tokens of a shard: patches, pads, and where each of them stands in the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.planning.cut import pads_of
from harness.spatial.shard import CELLS_PER_TOKEN
from harness.types import ShardPlan


def patchify(latents: torch.Tensor) -> torch.Tensor:
    """``B,C,H,W`` to ``B,tokens,4*C``: token by token row by row, all channels of a cell together."""
    side = CELLS_PER_TOKEN
    cells = latents.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # B,C,rows,side,columns,side
    tokens: torch.Tensor = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return tokens


def unpatchify(tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Inverse of :func:`patchify` for latents of the given shape."""
    batch, channels, height, width = shape
    side = CELLS_PER_TOKEN
    cells = tokens.reshape(batch, height // side, width // side, side, side, channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(shape)


def origin(plan: ShardPlan, rank: int) -> tuple[int, int]:
    """Row and column of a rank's first token in the whole picture."""
    offset = plan.origins[rank]
    return (offset, 0) if plan.axis == "h" else (0, offset)


def image_positions(plan: ShardPlan, ranks: Sequence[int], frames: Sequence[int]) -> torch.Tensor:
    """Positions (frame, row, column) of the tokens of some ranks, one after the other.

    Parameters
    ----------
    plan
        The request's plan.
    ranks
        Whose tokens.
    frames
        For each item of the batch the frame its image stands at: behind its caption.

    Returns
    -------
    torch.Tensor
        ``B,sum(sequence_lengths of ranks),3``, int32. Pads stand at (0, 0, 0).
    """
    shards = []
    for rank in ranks:
        (rows, columns), (first_row, first_column) = plan.grid(rank), origin(plan, rank)
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        grid = torch.stack([torch.ones_like(row), row + first_row, column + first_column], dim=-1).flatten(0, 1)
        shards.append(torch.cat([grid, grid.new_zeros(plan.sequence_lengths[rank] - len(grid), 3)]))
    positions = torch.cat(shards).int().repeat(len(frames), 1, 1)
    positions[..., 0] *= torch.tensor(frames, dtype=torch.int32)[:, None]
    return positions


def caption_lengths(captions: Sequence[torch.Tensor]) -> list[int]:
    """Length of each caption with its pads."""
    return [len(caption) + pads_of(len(caption)) for caption in captions]


def caption_positions(length: int) -> torch.Tensor:
    """Positions of a caption's tokens and pads: token *i* stands at (1 + i, 0, 0); ``length,3``, int32."""
    positions = torch.zeros(length, 3, dtype=torch.int32)
    positions[:, 0] = torch.arange(1, length + 1)
    return positions
