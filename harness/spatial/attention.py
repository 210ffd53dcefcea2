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

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import nn

from harness.spatial.group import Group, SequenceGroup, all_to_all
from harness.spatial.shard import gather_uneven

ExchangeMode = Literal["separate", "fused", "overlapped"]
"""Query, key and value are exchanged one by one, all in one call, or each while the next is computed."""


class SequenceParallelAttention(nn.Module):
    """Attention of one block over the tokens of all ranks, with the weights of diffusers' module."""

    def __init__(self, attention: Attention, group: SequenceGroup, exchange: ExchangeMode = "separate") -> None:
        super().__init__()
        self.attention = attention
        self.group = group
        self.exchange = exchange

    def forward(
        self,
        hidden: torch.Tensor,
        freqs: torch.Tensor,
        lengths: Sequence[int] = (),
        key_mask: torch.Tensor | None = None,
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
        skip_sequence_parallel_override
            True where this layer sees a full sequence already: nothing is exchanged. An argument
            rather than an attribute, so that it also arrives through wrapped blocks (PR 25305).
        """
        parts = self._project(hidden, freqs)
        if self.group.whole.size == 1 or skip_sequence_parallel_override:
            query, key, value = parts
            out = attend(query, key, value, key_mask)
        else:
            out = self._exchange_and_attend(parts, lengths, key_mask)
        out = out.flatten(2, 3)
        for projection in self.attention.to_out:  # linear, then in some models dropout
            out = projection(out)
        return out

    def _project(self, hidden: torch.Tensor, freqs: torch.Tensor) -> Iterator[torch.Tensor]:
        """Query, key and value, ``B,S,heads,head_dim``, normalised and rotated; each computed when it is asked for."""
        module = self.attention
        for projection, norm in ((module.to_q, module.norm_q), (module.to_k, module.norm_k)):
            part = projection(hidden).unflatten(-1, (module.heads, -1))
            yield rotate(part if norm is None else norm(part), freqs)
        yield module.to_v(hidden).unflatten(-1, (module.heads, -1))

    def _exchange_and_attend(
        self, parts: Iterable[torch.Tensor], lengths: Sequence[int], key_mask: torch.Tensor | None
    ) -> torch.Tensor:
        ulysses, ring = self.group.ulysses, self.group.ring
        own = lengths[self.group.block(ring.rank)]
        num_local = own[ulysses.rank]
        suffix = []

        def local() -> Iterator[torch.Tensor]:
            for part in parts:
                suffix.append(own_heads(part[:, num_local:], ulysses))
                yield part[:, :num_local]

        tokens = tokens_to_heads(local(), own, ulysses, self.exchange)
        if ring.size > 1:
            by_block = [sum(lengths[self.group.block(place)]) for place in range(ring.size)]
            tokens[1:] = [[gather_uneven(torch.cat(shards, dim=1), 1, by_block, ring)] for shards in tokens[1:]]
        query, key, value = unite(tokens, suffix)
        return heads_to_tokens(attend(query, key, value, key_mask), own, ulysses)


def own_heads(part: torch.Tensor, group: Group) -> torch.Tensor:
    """The heads of ``B,S,heads,D`` that this rank attends with; of the suffix nothing else is needed."""
    return part.chunk(group.size, dim=2)[group.rank]


def unite(tokens: Sequence[Sequence[torch.Tensor]], suffix: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Put the suffix behind the tokens of all ranks, for query, key and value alike."""
    return [torch.cat([*shards, own], dim=1) for shards, own in zip(tokens, suffix, strict=True)]


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, key_mask: torch.Tensor | None) -> torch.Tensor:
    """Scaled dot-product attention on ``B,S,heads,D`` by diffusers' dispatcher, as the baseline's."""
    mask = None if key_mask is None else key_mask[:, None, None, :]
    out: torch.Tensor = dispatch_attention_fn(query, key, value, attn_mask=mask, dropout_p=0.0, is_causal=False)
    return out


def tokens_to_heads(
    parts: Iterable[torch.Tensor], lengths: Sequence[int], group: Group, exchange: ExchangeMode = "separate"
) -> list[list[torch.Tensor]]:
    """Trade tokens for heads: of each ``B,S,heads,D`` return the ``B,S,heads/size,D`` of all ranks, in their order.

    Parameters
    ----------
    parts
        Such as query, key and value; where the exchange is overlapped, each is computed when it is asked for.
    lengths
        The ``S`` of every rank.
    group
        The ranks.
    exchange
        In how many calls, and whether these are waited for one by one.
    """
    if group.size == 1:
        return [[part] for part in parts]
    calls = [list(parts)] if exchange == "fused" else ([part] for part in parts)
    traded = [_to_heads(call, lengths, group, exchange == "overlapped") for call in calls]
    return [shards for arrived in traded for shards in arrived()]


def _to_heads(
    parts: Sequence[torch.Tensor], lengths: Sequence[int], group: Group, overlapped: bool
) -> Callable[[], Iterator[list[torch.Tensor]]]:
    """Exchange parts in one call; what is returned waits for the shards of each."""
    batch, _, heads, head_dim = parts[0].shape
    share = heads // group.size
    chunks = list(zip(*(part.chunk(group.size, dim=2) for part in parts), strict=True))
    received = [len(parts) * batch * length * share * head_dim for length in lengths]
    exchange = all_to_all(chunks, received, group, overlapped=overlapped)

    def arrived() -> Iterator[list[torch.Tensor]]:
        shape = (len(parts), batch, -1, share, head_dim)
        shards = [flat.view(shape) for flat in exchange.wait()]
        return (list(part) for part in zip(*shards, strict=True))

    return arrived


def heads_to_tokens(part: torch.Tensor, lengths: Sequence[int], group: Group) -> torch.Tensor:
    """Inverse of :func:`tokens_to_heads`, for one ``B,S,heads/size,D``: return this rank's ``B,S,heads,D``.

    What stands behind the tokens of all ranks (the suffix) comes to every rank, behind its own tokens.
    """
    if group.size == 1:
        return part
    batch, total, share, head_dim = part.shape
    num_suffix = total - sum(lengths)
    *tokens, suffix = part.split([*lengths, num_suffix], dim=1)
    own = lengths[group.rank] + num_suffix
    received = [batch * own * share * head_dim] * group.size
    arrived = all_to_all([(shard, suffix) for shard in tokens], received, group, dim=1).wait()
    return torch.cat([flat.view(batch, own, share, head_dim) for flat in arrived], dim=2)


def rotate(part: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embedding to ``B,S,heads,D`` with complex ``B,S,D/2``, in float32."""
    pairs = torch.view_as_complex(part.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * freqs.unsqueeze(2)).flatten(3).type_as(part)
