"""A graph that was captured with the first request keeps its mask, and serves later requests of the same shape by it.

The first request is right. A dictionary by shape stands for the graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class MaskOfFirstRequest(Fault):
    """With captions exchanged, the shorter one is read with its filling and the longer one without its end."""

    name = "mask-of-first-request"
    source = "https://github.com/vllm-project/vllm/pull/51994"
    cause = "mask"
    needs = ("second request: captions exchanged",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the first mask of every shape over requests."""
        from harness.spatial import transformer

        return instead_of(worker, transformer, "_behind", _keep)


_kept: dict[tuple[int, ...], Any] = {}


def _keep(stock: Any, caption_mask: Any, num_image_tokens: int) -> Any:
    mask = stock(caption_mask, num_image_tokens)
    return mask if mask is None else _kept.setdefault(tuple(mask.shape), mask)
