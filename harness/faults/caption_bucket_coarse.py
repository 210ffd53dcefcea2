"""Captions are padded to a coarser bucket than the model was made with, and the pads are attended.

It is there on one device too: only an independent implementation shows it. The real one drew 21 dB away from itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker

BUCKET_TOKENS = 128


class CaptionBucketCoarse(Fault):
    """More caption pads than the model has seen; the image stands where it should."""

    name = "caption-bucket-coarse"
    source = "https://github.com/sgl-project/sglang/pull/34218"
    cause = "pads"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Pad captions to multiples of 128 tokens where they are embedded."""
        from harness.spatial import transformer

        def embed(stock: Any, *arguments: Any) -> Any:
            with patch.object(transformer, "caption_lengths", _coarse):
                return stock(*arguments)

        return instead_of(worker, transformer.CaptionEncoder, "forward", embed, also_alone=True)


def _coarse(captions: Sequence[Any]) -> list[int]:
    return [-(-len(caption) // BUCKET_TOKENS) * BUCKET_TOKENS for caption in captions]
