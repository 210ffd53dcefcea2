"""Attention over the tokens of all ranks.

Ulysses: each rank holds some tokens and all heads. Attention wants all tokens, and heads are independent:
one all-to-all trades tokens for heads, a second one trades back. Ranks may hold different numbers of
tokens. The caption stands on every rank alike (the suffix): each rank merely picks its heads of it, so
that it enters attention once.

Ring: where the Ulysses groups hold parts of the picture only, keys and values are gathered over the ring,
and each rank's queries meet them all.

The exchange follows DeepSpeed-Ulysses (arXiv 2309.14509); the suffix and the skip argument follow SGLang's
PRs 21042 and 25305.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import nn

from harness.spatial.group import Group, SequenceGroup, all_gather, all_to_all
from harness.spatial.shard import gather_uneven


class SequenceParallelAttention(nn.Module):
    """Attention of one block over the tokens of all ranks, with the weights of diffusers' module."""

    def __init__(self, attention: Attention, group: SequenceGroup) -> None:
        super().__init__()
        self.attention = attention
        self.group = group

    def forward(
        self,
        hidden: torch.Tensor,
        freqs: torch.Tensor,
        lengths: Sequence[int] = (),
        key_mask: torch.Tensor | None = None,
        fused: bool = False,
        skip_sequence_parallel_override: bool = False,
    ) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        hidden
            ``B,S,D``: this rank's tokens, then those that every rank holds alike (the suffix).
        freqs
            ``B,S,head_dim/2``, complex: rotary frequencies of the same tokens.
        lengths
            Tokens of each rank of the whole group, suffix not counted.
        key_mask
            ``B,keys``, true for keys to attend to: the tokens of all ranks in their order, then the suffix.
        fused
            Exchange query, key and value in one call instead of three.
        skip_sequence_parallel_override
            True where this layer sees a full sequence already: nothing is exchanged. An argument
            rather than an attribute, so that it also arrives through wrapped blocks (PR 25305).
        """
        query, key, value = self._project(hidden, freqs)
        if self.group.whole.size == 1 or skip_sequence_parallel_override:
            out = attend(query, key, value, key_mask)
        else:
            out = self._exchange_and_attend([query, key, value], lengths, key_mask, fused)
        out = out.flatten(2, 3)
        for projection in self.attention.to_out:  # linear, then in some models dropout
            out = projection(out)
        return out

    def _project(self, hidden: torch.Tensor, freqs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value, ``B,S,heads,head_dim``, normalised and rotated."""
        module = self.attention
        query, key, value = (
            projection(hidden).unflatten(-1, (module.heads, -1))
            for projection in (module.to_q, module.to_k, module.to_v)
        )
        if module.norm_q is not None:
            query = module.norm_q(query)
        if module.norm_k is not None:
            key = module.norm_k(key)
        return rotate(query, freqs), rotate(key, freqs), value

    def _exchange_and_attend(
        self, parts: list[torch.Tensor], lengths: Sequence[int], key_mask: torch.Tensor | None, fused: bool
    ) -> torch.Tensor:
        ulysses, ring = self.group.ulysses, self.group.ring
        own = lengths[self.group.block(ring.rank)]
        num_local = own[ulysses.rank]
        tokens = tokens_to_heads([part[:, :num_local] for part in parts], own, ulysses, fused)
        if ring.size > 1:
            by_block = [sum(lengths[self.group.block(place)]) for place in range(ring.size)]
            tokens[1:] = [gather_uneven(part, 1, by_block, ring) for part in tokens[1:]]
        suffix = [own_heads(part[:, num_local:], ulysses) for part in parts]
        query, key, value = unite(tokens, suffix)
        out = attend(query, key, value, key_mask)
        local = heads_to_tokens(out[:, : sum(own)], own, ulysses)
        if out.shape[1] == sum(own):
            return local
        return torch.cat([local, torch.cat(all_gather(out[:, sum(own) :], ulysses), dim=2)], dim=1)


def own_heads(part: torch.Tensor, group: Group) -> torch.Tensor:
    """The heads of ``B,S,heads,D`` that this rank attends with; of the suffix nothing else is needed."""
    return part.chunk(group.size, dim=2)[group.rank]


def unite(tokens: Sequence[torch.Tensor], suffix: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Put the suffix behind the tokens of all ranks, for query, key and value alike."""
    return [torch.cat(pair, dim=1) for pair in zip(tokens, suffix, strict=True)]


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, key_mask: torch.Tensor | None) -> torch.Tensor:
    """Scaled dot-product attention on ``B,S,heads,D`` by diffusers' dispatcher, as the baseline's."""
    mask = None if key_mask is None else key_mask[:, None, None, :]
    out: torch.Tensor = dispatch_attention_fn(query, key, value, attn_mask=mask, dropout_p=0.0, is_causal=False)
    return out


def tokens_to_heads(
    parts: Sequence[torch.Tensor], lengths: Sequence[int], group: Group, fused: bool = False
) -> list[torch.Tensor]:
    """Trade tokens for heads: each ``B,S,heads,D`` becomes ``B,sum(S),heads/size,D``.

    ``lengths`` holds the ``S`` of every rank. ``fused`` sends all parts in one call.
    """
    if group.size == 1:
        return list(parts)
    if fused:
        return list(_to_heads(torch.cat(list(parts)), lengths, group).chunk(len(parts)))
    return [_to_heads(part, lengths, group) for part in parts]


def _to_heads(part: torch.Tensor, lengths: Sequence[int], group: Group) -> torch.Tensor:
    batch, _, heads, head_dim = part.shape
    share = heads // group.size
    received = [batch * length * share * head_dim for length in lengths]
    arrived = all_to_all(part.chunk(group.size, dim=2), received, group)
    shards = [flat.view(batch, length, share, head_dim) for flat, length in zip(arrived, lengths, strict=True)]
    return torch.cat(shards, dim=1)


def heads_to_tokens(part: torch.Tensor, lengths: Sequence[int], group: Group) -> torch.Tensor:
    """Inverse of :func:`tokens_to_heads`, for one part."""
    if group.size == 1:
        return part
    batch, _, share, head_dim = part.shape
    own = lengths[group.rank]
    received = [batch * own * share * head_dim] * group.size
    arrived = all_to_all(part.split(list(lengths), dim=1), received, group)
    return torch.cat([flat.view(batch, own, share, head_dim) for flat in arrived], dim=2)


def rotate(part: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embedding to ``B,S,heads,D`` with complex ``B,S,D/2``, in float32."""
    pairs = torch.view_as_complex(part.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * freqs.unsqueeze(2)).flatten(3).type_as(part)
