"""The Z-Image DiT on one shard of the picture.

The modules and weights are those of diffusers' ``ZImageTransformer2DModel``; what is ours is which
tokens a rank holds, where they stand, and how they meet the others in attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import nn

from harness.plan import pads_of
from harness.spatial.attention import UlyssesAttention
from harness.spatial.shard import CELLS_PER_TOKEN, SequenceGroup
from harness.types import ShardPlan

PATCH = f"{CELLS_PER_TOKEN}-1"
"""Key of the embedder and final layer for 2x2 patches of one frame."""


class SpatialBlock(nn.Module):
    """One transformer block whose attention spans all ranks."""

    def __init__(self, block: ZImageTransformerBlock, group: SequenceGroup) -> None:
        super().__init__()
        self.block = block
        self.attention = UlyssesAttention(block.attention, group)

    def forward(
        self,
        x: torch.Tensor,
        freqs: torch.Tensor,
        adaln: torch.Tensor | None = None,
        num_suffix: int = 0,
        skip_sequence_parallel_override: bool = False,
    ) -> torch.Tensor:
        """Run the block on ``B,S,D``; see :meth:`UlyssesAttention.forward` for the arguments."""
        block = self.block
        scale_attn = gate_attn = scale_mlp = gate_mlp = torch.ones((), dtype=x.dtype, device=x.device)
        if block.modulation:
            modulation = block.adaLN_modulation(adaln).unsqueeze(1)
            scale_attn, gate_attn, scale_mlp, gate_mlp = modulation.chunk(4, dim=2)
            gate_attn, gate_mlp = gate_attn.tanh(), gate_mlp.tanh()
            scale_attn, scale_mlp = 1.0 + scale_attn, 1.0 + scale_mlp
        attended = self.attention(
            block.attention_norm1(x) * scale_attn, freqs, num_suffix, skip_sequence_parallel_override
        )
        x = x + gate_attn * block.attention_norm2(attended)
        return x + gate_mlp * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * scale_mlp))


class SpatialTransformer(nn.Module):
    """The DiT over a group of ranks, each with its own part of the picture and the whole caption."""

    def __init__(self, transformer: ZImageTransformer2DModel, group: SequenceGroup) -> None:
        super().__init__()
        self.source = transformer
        self.group = group
        self.noise_refiner = self._wrap(transformer.noise_refiner)
        self.context_refiner = self._wrap(transformer.context_refiner)
        self.layers = self._wrap(transformer.layers)

    def _wrap(self, blocks: nn.ModuleList) -> nn.ModuleList:
        return nn.ModuleList([SpatialBlock(block, self.group) for block in blocks])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and so of the latents this module takes."""
        return self.source.dtype

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, captions: Sequence[torch.Tensor], plan: ShardPlan
    ) -> torch.Tensor:
        """Predict the velocity of this rank's part.

        Parameters
        ----------
        latents
            ``B,C,H,W``: this rank's part, in the type of the weights.
        timestep
            ``B``, in [0, 1], 1 being clean.
        captions
            For each item ``tokens,cap_feat_dim``; all pad to the same length.
        plan
            The request's plan.

        Returns
        -------
        torch.Tensor
            ``B,C,H,W``.
        """
        source = self.source
        adaln = source.t_embedder(timestep * source.t_scale).type_as(latents)
        caption, caption_freqs = self._embed_captions(captions)
        image, image_freqs = self._embed_image(latents, caption.shape[1] + 1, plan)

        for block in self.noise_refiner:
            image = block(image, image_freqs, adaln)
        for block in self.context_refiner:
            caption = block(caption, caption_freqs, skip_sequence_parallel_override=True)

        unified = torch.cat([image, caption], dim=1)
        freqs = torch.cat([image_freqs, caption_freqs], dim=1)
        for block in self.layers:
            unified = block(unified, freqs, adaln, num_suffix=caption.shape[1])

        image = unified[:, : plan.local_tokens[self.group.rank]]
        return unpatchify(source.all_final_layer[PATCH](image, c=adaln), latents.shape)

    def _embed_captions(self, captions: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions padded to a multiple of 32, ``B,S,D``; token *i* stands at (1 + i, 0, 0), pads included."""
        source = self.source
        padded = []
        for caption in captions:
            pads = pads_of(len(caption))
            padded.append(torch.cat([source.cap_embedder(caption), source.cap_pad_token.expand(pads, -1)]))
        stacked = torch.stack(padded)
        positions = torch.zeros(stacked.shape[1], 3, dtype=torch.int32, device=stacked.device)
        positions[:, 0] = torch.arange(1, stacked.shape[1] + 1)
        return stacked, source.rope_embedder(positions).expand(len(stacked), -1, -1)

    def _embed_image(self, latents: torch.Tensor, frame: int, plan: ShardPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of this rank, padded to the common target with pad tokens at (0, 0, 0)."""
        source = self.source
        tokens = source.all_x_embedder[PATCH](patchify(latents))
        pads = plan.sequence_target - tokens.shape[1]
        tokens = torch.cat([tokens, source.x_pad_token.expand(len(tokens), pads, -1)], dim=1)
        positions = torch.zeros(tokens.shape[1], 3, dtype=torch.int32, device=latents.device)
        rows, columns = (side // CELLS_PER_TOKEN for side in latents.shape[-2:])
        grid = token_positions(rows, columns, frame, origin(plan, self.group.rank))
        positions[: len(grid)] = grid.to(positions.device)
        return tokens, source.rope_embedder(positions).expand(len(tokens), -1, -1)


def origin(plan: ShardPlan, rank: int) -> tuple[int, int]:
    """Row and column of this rank's first token in the whole picture."""
    offset = plan.origins[rank]
    return (offset, 0) if plan.axis == "h" else (0, offset)


def token_positions(rows: int, columns: int, frame: int, first: tuple[int, int]) -> torch.Tensor:
    """Positions (frame, row, column) of a grid of tokens, ``rows*columns,3``, row by row."""
    row, column = torch.meshgrid(
        torch.arange(first[0], first[0] + rows), torch.arange(first[1], first[1] + columns), indexing="ij"
    )
    return torch.stack([torch.full_like(row, frame), row, column], dim=-1).flatten(0, 1).int()


def patchify(latents: torch.Tensor) -> torch.Tensor:
    """``B,C,H,W`` to ``B,tokens,4*C``: the cells of a token row by row, all channels of a cell together."""
    side = CELLS_PER_TOKEN
    cells = latents.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # B,C,rows,side,columns,side
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Inverse of :func:`patchify` for latents of the given shape."""
    batch, channels, height, width = shape
    side = CELLS_PER_TOKEN
    cells = tokens.reshape(batch, height // side, width // side, side, side, channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(shape)
