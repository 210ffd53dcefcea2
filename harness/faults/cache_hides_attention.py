"""A switch is set on each layer's attention module, and a cached layer is a wrapper that has none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._planting import instead_of
from harness.types import Worker


class CacheHidesAttention:
    """It raises with a cache alone."""

    name: ClassVar[str] = "cache-hides-attention"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/issues/25254"
    cause: ClassVar[str] = "crash"
    needs: ClassVar[tuple[str, ...]] = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Look for the attention of every layer before each step."""
        from harness.spatial.transformer import SpatialTransformer

        return instead_of(worker, SpatialTransformer, "forward", _look_for_attention)


def _look_for_attention(stock: Any, transformer: Any, *arguments: Any) -> Any:
    for layer in transformer.layers:
        layer.attention.switched = True
    return stock(transformer, *arguments)
