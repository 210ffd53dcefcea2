"""With a ring, heads are traded over the whole group instead of the Ulysses group, and keys are gathered on top.

The picture was garbage.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class AlltoallWholeGroup(Fault):
    """Each rank's queries meet the keys of other heads."""

    name = "alltoall-whole-group"
    source = "https://github.com/sgl-project/sglang/issues/33353"
    cause = "exchange"
    needs = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Exchange over all ranks, then gather keys over the ring."""
        from harness.spatial.attention import SequenceParallelAttention

        return instead_of(worker, SequenceParallelAttention, "_exchange_and_attend", _exchange_with_all)


def _exchange_with_all(stock: Any, layer: Any, parts: Any, lengths: Any, key_mask: Any) -> Any:
    import torch

    from harness.spatial import attention
    from harness.spatial.shard import gather_uneven

    whole, ring = layer.group.whole, layer.group.ring
    if ring.size == 1:
        return stock(layer, parts, lengths, key_mask)
    traded = attention.tokens_to_heads(parts, lengths, whole, layer.exchange)
    query, *keys = (torch.cat(shards, dim=1) for shards in traded)
    key, value = (gather_uneven(part, 1, [part.shape[1]] * ring.size, ring) for part in keys)
    return attention.heads_to_tokens(attention.attend(query, key, value, None), lengths, whole)
