"""Each rank of a ring applies its own part of the mask to the keys of every other.

Found in release 0.42.1 by running it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class RingMaskOwn(Fault):
    """The first rank meets filling; the last one masks image tokens."""

    name = "ring-mask-own"
    source = "https://github.com/huggingface/diffusers"
    cause = "mask"
    needs = ("ring", "captions of a batch: different buckets")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Repeat this rank's part of the mask."""
        from harness.spatial import transformer

        def behind(stock: Any, caption_mask: Any, num_image_tokens: int) -> Any:
            mask = stock(caption_mask, num_image_tokens)
            if mask is None:
                return None
            own = mask.tensor_split(worker.world_size, dim=1)[worker.rank]
            return own.repeat(1, worker.world_size + 1)[:, : mask.shape[1]]

        return instead_of(worker, transformer, "_behind", behind)
