"""Uneven parts of a mask are filled up to the longest, gathered, and all filling is taken off at the end.

Found in release 0.42.1 by running it: of parts of 22, 21 and 21 the filling of the second stays inside, what follows
moves by one, and the last entry is lost.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class MaskFilledUnevenly(Fault):
    """One caption token is masked, and one of filling is met."""

    name = "mask-filled-unevenly"
    source = "https://github.com/huggingface/diffusers"
    cause = "mask"
    needs = ("ranks: 3", "captions of a batch: different buckets")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Split the caption's mask over the ranks, and gather it so."""
        import torch

        from harness.spatial import transformer

        def gathered(mask: torch.Tensor) -> torch.Tensor:
            parts = mask.tensor_split(worker.world_size, dim=1)
            filled = [torch.nn.functional.pad(part, (0, parts[0].shape[1] - part.shape[1])) for part in parts]
            return torch.cat(filled, dim=1)[:, : mask.shape[1]]

        def behind(stock: Any, caption_mask: torch.Tensor | None, num_image_tokens: int) -> Any:
            return stock(None if caption_mask is None else gathered(caption_mask), num_image_tokens)

        return instead_of(worker, transformer, "_behind", behind)
