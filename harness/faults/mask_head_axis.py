"""The mask's batch is taken for its heads: heads of all pictures get the masks of the pictures in turn.

Shapes fit, so nothing is said.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class MaskHeadAxis(Fault):
    """A head reads the mask of another picture."""

    name = "mask-head-axis"
    source = "https://github.com/huggingface/diffusers/issues/14316"
    cause = "mask"
    needs = ("batch", "captions of a batch: different buckets")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Lay the masks along the heads instead of the batch, wherever heads are shared."""
        from harness.spatial import attention

        num_heads = 0

        def project(stock: Any, layer: Any, *arguments: Any) -> Any:
            nonlocal num_heads
            num_heads = layer.attention.heads
            return stock(layer, *arguments)

        def attend(stock: Any, query: Any, key: Any, value: Any, key_mask: Any) -> Any:
            if key_mask is None or query.shape[2] == num_heads:
                return stock(query, key, value, key_mask)
            return _attend_by_heads(query, key, value, key_mask)

        return together(
            instead_of(worker, attention.SequenceParallelAttention, "_project", project),
            instead_of(worker, attention, "attend", attend),
        )


def _attend_by_heads(query: Any, key: Any, value: Any, key_mask: Any) -> Any:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    picture_of_head = [head % len(key_mask) for head in range(query.shape[2])]
    mask = key_mask[picture_of_head][None, :, None, :]
    return dispatch_attention_fn(query, key, value, attn_mask=mask, dropout_p=0.0, is_causal=False)
