"""The filling of shorter captions in a batch is not masked once the sequence is split."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CaptionFillAttended(Fault):
    """A haze, in batches with captions of different lengths."""

    name = "caption-fill-attended"
    source = "https://github.com/sgl-project/sglang/issues/30107"
    cause = "mask"
    needs = ("captions of a batch: different buckets",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Leave out the mask of the main layers."""
        from harness.spatial import transformer

        return instead_of(worker, transformer, "_behind", lambda stock, caption_mask, num_image_tokens: None)
