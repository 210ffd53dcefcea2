"""The Z-Image DiT on one shard of the picture.

The modules and weights are those of diffusers' ``ZImageTransformer2DModel``; what is ours is which
tokens a rank holds, where they stand, and how they meet the others in attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import RopeEmbedder, ZImageTransformerBlock
from torch import nn

from harness.spatial.attention import ExchangeMode, SequenceParallelAttention
from harness.spatial.group import SequenceGroup
from harness.spatial.shard import CELLS_PER_TOKEN, gather_uneven
from harness.spatial.tokens import caption_lengths, caption_positions, image_positions, patchify, unpatchify
from harness.types import ShardPlan

PATCH = f"{CELLS_PER_TOKEN}-1"
"""Key of the embedder and final layer for 2x2 patches of one frame."""


class SpatialBlock(nn.Module):
    """One transformer block whose attention spans all ranks."""

    def __init__(self, block: ZImageTransformerBlock, group: SequenceGroup, exchange: ExchangeMode) -> None:
        super().__init__()
        self.block = block
        self.attention = SequenceParallelAttention(block.attention, group, exchange)

    def forward(
        self,
        x: torch.Tensor,
        freqs: torch.Tensor,
        adaln: torch.Tensor | None = None,
        lengths: Sequence[int] = (),
        key_mask: torch.Tensor | None = None,
        skip_sequence_parallel_override: bool = False,
    ) -> torch.Tensor:
        """Run the block on ``B,S,D``; see :meth:`SequenceParallelAttention.forward` for the arguments."""
        block = self.block
        if block.modulation:
            scales, gates = block.adaLN_modulation(adaln).unflatten(1, (2, 2, 1, -1)).unbind(dim=2)
            (scale_attn, scale_mlp), (gate_attn, gate_mlp) = (1.0 + scales).unbind(1), gates.tanh().unbind(1)
        else:
            scale_attn = scale_mlp = gate_attn = gate_mlp = x.new_ones(())
        normed = block.attention_norm1(x) * scale_attn
        attended = self.attention(normed, freqs, lengths, key_mask, skip_sequence_parallel_override)
        x = x + gate_attn * block.attention_norm2(attended)
        refined: torch.Tensor = x + gate_mlp * block.ffn_norm2(block.feed_forward(block.ffn_norm1(x) * scale_mlp))
        return refined


class CaptionEncoder(nn.Module):
    """The caption's embedding and refiner: nothing here depends on the denoise step."""

    def __init__(self, transformer: ZImageTransformer2DModel, context_refiner: nn.ModuleList) -> None:
        super().__init__()
        self.embedder, self.pad_token = transformer.cap_embedder, transformer.cap_pad_token
        self.rope_embedder = transformer.rope_embedder
        self.context_refiner = context_refiner

    def forward(self, captions: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Captions ``B,S,D``, their rotary frequencies, and a mask ``B,S`` where lengths differ.

        Each caption is padded to a multiple of 32 with the learned pad token, which is attended to; what a
        shorter one lacks of the longest is masked, and zero.
        """
        lengths = caption_lengths(captions)
        longest = max(lengths)
        embedded = captions[0].new_zeros(len(captions), longest, self.pad_token.shape[-1])
        freqs = rope(self.rope_embedder, caption_positions(longest), embedded.device).repeat(len(captions), 1, 1)
        mask = None
        if min(lengths) < longest:
            mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).to(embedded.device)
        for item, (caption, length) in enumerate(zip(captions, lengths, strict=True)):
            embedded[item, : len(caption)] = self.embedder(caption)
            embedded[item, len(caption) : length] = self.pad_token
        for block in self.context_refiner:
            embedded = block(embedded, freqs, key_mask=mask, skip_sequence_parallel_override=True)
        if mask is not None:
            embedded = embedded.masked_fill(~mask[..., None], 0.0)
        return embedded, freqs, mask


@dataclass(frozen=True)
class Conditions:
    """Everything about a request that stays the same from step to step, computed once."""

    plan: ShardPlan
    caption: torch.Tensor
    """``B,S,D``, refined."""
    image_freqs: torch.Tensor
    """``B,tokens,head_dim/2``, complex: rotary frequencies of this rank's image tokens and pads."""
    freqs: torch.Tensor
    """The same of what enters the main layers: the image tokens there (of all ranks in a ring), then the caption."""
    key_mask: torch.Tensor | None = None
    """``B,keys``: the keys of the main layers that are attended to, over all ranks; ``None`` for all."""

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of it that lies in memory of the device."""
        mask = () if self.key_mask is None else (self.key_mask,)
        return self.caption, self.image_freqs, self.freqs, *mask

    def clone(self) -> Conditions:
        """Copy it to memory of its own."""
        return Conditions(self.plan, *(tensor.clone() for tensor in self.tensors))


class SpatialTransformer(nn.Module):
    """The DiT over a group of ranks, each with its own part of the picture and the whole caption.

    Parameters
    ----------
    transformer
        The loaded model; its modules are used, not copied.
    group
        The ranks that share the picture.
    exchange
        How query, key and value are exchanged.
    """

    def __init__(
        self, transformer: ZImageTransformer2DModel, group: SequenceGroup, exchange: ExchangeMode = "separate"
    ) -> None:
        super().__init__()
        self.source = transformer
        self.group = group
        self.exchange: ExchangeMode = exchange
        self.noise_refiner = self._wrap(transformer.noise_refiner)
        self.caption_encoder = CaptionEncoder(transformer, self._wrap(transformer.context_refiner))
        self.layers = self._wrap(transformer.layers)

    def _wrap(self, blocks: nn.ModuleList) -> nn.ModuleList:
        return nn.ModuleList([SpatialBlock(block, self.group, self.exchange) for block in blocks])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, and so of the latents this module takes."""
        dtype: torch.dtype = self.source.dtype
        return dtype

    def prepare(self, captions: Sequence[torch.Tensor], plan: ShardPlan) -> Conditions:
        """Compute what all steps of a request share.

        Parameters
        ----------
        captions
            For each item of the batch ``tokens,cap_feat_dim``, of any lengths.
        plan
            The request's plan.
        """
        caption, caption_freqs, caption_mask = self.caption_encoder(captions)
        frames = [length + 1 for length in caption_lengths(captions)]
        own = self._image_freqs(plan, [self.group.whole.rank], frames)
        met = self._image_freqs(plan, range(self.group.whole.size), frames) if self._gathers else own
        freqs = torch.cat([met, caption_freqs], dim=1)
        return Conditions(plan, caption, own, freqs, _behind(caption_mask, sum(plan.sequence_lengths)))

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """Predict the velocity of this rank's part.

        Parameters
        ----------
        latents
            ``B,C,H,W``: this rank's part, in the type of the weights.
        timestep
            ``B``, in [0, 1], 1 being clean.
        conditions
            What :meth:`prepare` made of the request.

        Returns
        -------
        torch.Tensor
            ``B,C,H,W``.
        """
        source, plan, rank = self.source, conditions.plan, self.group.whole.rank
        adaln = source.t_embedder(timestep * source.t_scale).type_as(latents)
        image = self._embed_image(latents, plan.sequence_lengths[rank])
        for block in self.noise_refiner:
            image = block(image, conditions.image_freqs, adaln, lengths=plan.sequence_lengths)
        if self._gathers:
            image = gather_uneven(image, 1, plan.sequence_lengths, self.group.whole)
        unified = torch.cat([image, conditions.caption], dim=1)
        for block in self.layers:
            unified = block(
                unified,
                conditions.freqs,
                adaln,
                lengths=plan.sequence_lengths,
                key_mask=conditions.key_mask,
                skip_sequence_parallel_override=self._gathers,
            )
        image = own_tokens(unified, plan, rank, self._gathers)
        return unpatchify(source.all_final_layer[PATCH](image, c=adaln), latents.shape)

    @property
    def _gathers(self) -> bool:
        """Whether the main layers see the tokens of all ranks (a ring) instead of exchanging them."""
        return self.group.ring.size > 1

    def _embed_image(self, latents: torch.Tensor, length: int) -> torch.Tensor:
        """This rank's tokens ``B,length,D``, padded with the learned pad token."""
        tokens = self.source.all_x_embedder[PATCH](patchify(latents))
        pads = self.source.x_pad_token.expand(len(tokens), length - tokens.shape[1], -1)
        return torch.cat([tokens, pads], dim=1)

    def _image_freqs(self, plan: ShardPlan, ranks: Sequence[int], frames: Sequence[int]) -> torch.Tensor:
        return rope(self.source.rope_embedder, image_positions(plan, ranks, frames), self.source.device)


def rope(embedder: RopeEmbedder, positions: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Rotary frequencies of positions ``...,3``."""
    flat = embedder(positions.reshape(-1, 3).to(device))
    frequencies: torch.Tensor = flat.unflatten(0, positions.shape[:-1])
    return frequencies


def own_tokens(unified: torch.Tensor, plan: ShardPlan, rank: int, full: bool) -> torch.Tensor:
    """Image tokens of a rank, without pads and caption; ``full`` where the sequence is that of all ranks."""
    start = sum(plan.sequence_lengths[:rank]) if full else 0
    return unified[:, start : start + plan.local_tokens[rank]]


def _behind(caption_mask: torch.Tensor | None, num_image_tokens: int) -> torch.Tensor | None:
    """Mask of all keys: image tokens and their pads are always attended to, then the caption's mask."""
    if caption_mask is None:
        return None
    image = caption_mask.new_ones(len(caption_mask), num_image_tokens)
    return torch.cat([image, caption_mask], dim=1)
