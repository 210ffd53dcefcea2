"""The mask keeps another order than the keys: that of caption and image, where the keys are image and caption.

The real one cut an interleaved mask into contiguous parts; it was nearly invisible.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class MaskReordered(Fault):
    """Some image tokens are masked, and the caption's fill is not."""

    name = "mask-reordered"
    source = "https://github.com/huggingface/diffusers/issues/13696"
    cause = "mask"
    needs = ("captions of a batch: different buckets",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Put the caption's mask first."""
        from harness.spatial import transformer

        return instead_of(worker, transformer, "_behind", _caption_first)


def _caption_first(stock: Any, caption_mask: Any, num_image_tokens: int) -> Any:
    mask = stock(caption_mask, num_image_tokens)
    return None if mask is None else mask.roll(caption_mask.shape[1], dims=1)
