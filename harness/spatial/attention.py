"""Ulysses attention with a replicated suffix.

Each rank holds some tokens and all heads. Attention wants all tokens, and heads are independent: one
all-to-all trades tokens for heads, a second one trades back. The caption stands on every rank alike
(the suffix): each rank merely picks its heads of it, so that it enters attention once.

The exchange follows DeepSpeed-Ulysses (arXiv 2309.14509); the suffix follows SGLang's PR 21042.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import nn

from harness.spatial.shard import SequenceGroup


class UlyssesAttention(nn.Module):
    """Attention of one block over the tokens of all ranks, with the weights of diffusers' module."""

    def __init__(self, attention: Attention, group: SequenceGroup) -> None:
        super().__init__()
        self.attention = attention
        self.group = group

    def forward(
        self,
        hidden: torch.Tensor,
        freqs: torch.Tensor,
        num_suffix: int = 0,
        skip_sequence_parallel_override: bool = False,
    ) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        hidden
            ``B,S,D``: this rank's tokens, then ``num_suffix`` tokens that every rank holds alike.
        freqs
            ``B,S,head_dim/2``, complex: rotary frequencies of the same tokens.
        num_suffix
            Replicated tokens at the end.
        skip_sequence_parallel_override
            True where this layer sees a full sequence already: nothing is exchanged. An argument
            rather than an attribute, so that it also arrives through wrapped blocks (SGLang's PR 25305).
        """
        query, key, value = self._project(hidden, freqs)
        if self.group.size == 1 or skip_sequence_parallel_override:
            out = self._attend(query, key, value)
        else:
            query, key, value = (self._to_heads(part, num_suffix) for part in (query, key, value))
            out = self._to_tokens(self._attend(query, key, value), num_suffix)
        out = self.attention.to_out[0](out.flatten(2, 3))
        return self.attention.to_out[1](out) if len(self.attention.to_out) > 1 else out

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

    @staticmethod
    def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return dispatch_attention_fn(query, key, value, dropout_p=0.0, is_causal=False)

    def _to_heads(self, part: torch.Tensor, num_suffix: int) -> torch.Tensor:
        """``B,S_local+suffix,heads,D`` to ``B,S_all+suffix,heads/size,D``."""
        split = part.shape[1] - num_suffix
        suffix = part[:, split:].chunk(self.group.size, dim=2)[self.group.rank]
        return torch.cat([tokens_to_heads(part[:, :split], self.group), suffix], dim=1)

    def _to_tokens(self, part: torch.Tensor, num_suffix: int) -> torch.Tensor:
        """The way back; the suffix' heads are gathered, so that every rank holds it whole again."""
        split = part.shape[1] - num_suffix
        local = heads_to_tokens(part[:, :split], self.group)
        if not num_suffix:
            return local
        suffix = part[:, split:].contiguous()
        heads = [torch.empty_like(suffix) for _ in range(self.group.size)]
        dist.all_gather(heads, suffix, group=self.group.handle)
        return torch.cat([local, torch.cat(heads, dim=2)], dim=1)


def tokens_to_heads(part: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    """``B,S,heads,D`` (equal ``S`` on every rank) to ``B,size*S,heads/size,D``."""
    sent = part.unflatten(2, (group.size, -1)).permute(2, 0, 1, 3, 4)
    return _exchange(sent, group).permute(1, 0, 2, 3, 4).flatten(1, 2)


def heads_to_tokens(part: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    """Inverse of :func:`tokens_to_heads`."""
    sent = part.unflatten(1, (group.size, -1)).permute(1, 0, 2, 3, 4)
    return _exchange(sent, group).permute(1, 2, 0, 3, 4).flatten(2, 3)


def _exchange(sent: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    # A non-contiguous input is sent in the wrong order without an error (pytorch#141816).
    sent = sent.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group.handle)
    return received


def rotate(part: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embedding to ``B,S,heads,D`` with complex ``B,S,D/2``, in float32."""
    pairs = torch.view_as_complex(part.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * freqs.unsqueeze(2)).flatten(3).type_as(part)
