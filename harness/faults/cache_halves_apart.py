"""Each half of guidance asks the cache for itself: at the same step one is served and the other computed.

It is there on one device too. The real ones disagreed near the threshold; here the negative half is never served.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class CacheHalvesApart(Fault):
    """Guidance between predictions of different steps."""

    name = "cache-halves-apart"
    source = "https://github.com/vllm-project/vllm-omni/issues/7738"
    cause = "cache"
    needs = ("cache", "guidance")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Compute the steps that the cache would serve, and serve the first half of the batch all the same."""
        import torch
        from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5
        from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager

        served: bool = False
        kept: Any = None

        def decide(stock: Any, manager: Any, *states: Any, **options: Any) -> bool:
            nonlocal served
            served = stock(manager, *states, **options)
            if served:
                manager.add_cached_step()
            return False

        def call(stock: Any, blocks: Any, hidden: Any, *rest: Any, **options: Any) -> Any:
            nonlocal kept
            computed, encoder_hidden, residual = stock(blocks, hidden, *rest, **options)
            if served and kept is not None:
                half = len(hidden) // 2
                residual = torch.cat([kept[:half], residual[half:]])
                computed = hidden + residual
            kept = residual
            return computed, encoder_hidden, residual

        return together(
            instead_of(worker, CachedContextManager, "can_cache", decide, also_alone=True),
            instead_of(worker, CachedBlocks_Pattern_3_4_5, "call_Mn_blocks", call, also_alone=True),
        )
