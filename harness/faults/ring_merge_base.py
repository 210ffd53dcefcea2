"""A ring merges partial attentions by log-sum-exp, and takes a logarithm to base 2 for a natural one.

Every key is met, and parts of the ring weigh more or less than they should.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class RingMergeBase(Fault):
    """Right partial results, merged by wrong weights."""

    name = "ring-merge-base"
    source = "https://github.com/vllm-project/vllm/pull/28840"
    cause = "exchange"
    needs = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Attend to the keys of each part of the ring, and merge what comes out."""
        from harness.spatial import attention

        def exchange(stock: Any, layer: Any, parts: Any, lengths: Any, *rest: Any) -> Any:
            group = layer.group
            if group.ring.size == 1:
                return stock(layer, parts, lengths, *rest)
            keys = [sum(lengths[group.block(place)]) for place in range(group.ring.size)]
            with patch.object(attention, "attend", partial(_attend_and_merge, keys)):
                return stock(layer, parts, lengths, *rest)

        return instead_of(worker, attention.SequenceParallelAttention, "_exchange_and_attend", exchange)


def _attend_and_merge(num_keys: Sequence[int], query: Any, key: Any, value: Any, key_mask: Any) -> Any:
    import torch

    scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float()) / math.sqrt(query.shape[-1])
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None, :], -math.inf)
    sizes = [*num_keys[:-1], key.shape[1] - sum(num_keys[:-1])]  # the last part has the caption behind it
    parts = list(zip(scores.split(sizes, dim=-1), value.float().split(sizes, dim=1), strict=True))
    partial_out = [torch.einsum("bhqk,bkhd->bqhd", part.softmax(dim=-1), own) for part, own in parts]
    log2_sums = torch.stack([part.logsumexp(dim=-1) for part, _ in parts]) / math.log(2)
    weights = log2_sums.softmax(dim=0).transpose(2, 3)[..., None]
    return sum(weight * out for weight, out in zip(weights, partial_out, strict=True)).type_as(query)
