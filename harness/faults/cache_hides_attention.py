"""A switch is set on each layer's attention module, and a cached layer is a wrapper that has none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CacheHidesAttention(Fault):
    """It raises with a cache alone."""

    name = "cache-hides-attention"
    source = "https://github.com/sgl-project/sglang/issues/25254"
    cause = "crash"
    needs = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Look for the attention of every layer before each step."""
        from harness.spatial.transformer import SpatialTransformer

        return instead_of(worker, SpatialTransformer, "forward", _look_for_attention)


def _look_for_attention(stock: Any, transformer: Any, *arguments: Any) -> Any:
    for layer in transformer.layers:
        layer.attention.switched = True
    return stock(transformer, *arguments)
