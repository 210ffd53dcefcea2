"""The path through the cache leaves the exchange out: its layers attend to their own tokens only."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._local import attend_locally
from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CacheSkipsCollectives(Fault):
    """A split picture, with a cache alone."""

    name = "cache-skips-collectives"
    source = "https://github.com/vllm-project/vllm-omni/issues/6180"
    cause = "cache"
    needs = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Attend locally in all layers that the cache may skip."""
        from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5

        from harness.spatial.attention import SequenceParallelAttention

        def call(stock: Any, *arguments: Any, **options: Any) -> Any:
            with instead_of(worker, SequenceParallelAttention, "forward", attend_locally):
                return stock(*arguments, **options)

        return instead_of(worker, CachedBlocks_Pattern_3_4_5, "call_Mn_blocks", call)
