"""Each rank decides by its own part of the picture whether the cache serves a step.

Near the threshold the ranks of the real ones disagreed; xDiT#502 is the same. NCCL waits, as it did there; gloo ends
the process that is sent more than it asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, is_last
from harness.plugins import Fault, Worker


class CachePerRank(Fault):
    """One rank has skipped the layers and their collectives, and meets the other's with its next ones."""

    name = "cache-per-rank"
    source = "https://github.com/vllm-project/vllm-omni/issues/6180"
    cause = "crash"
    needs = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Let the last rank find every step alike to the one before, and the others none."""
        from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager

        def decide(stock: Any, *states: Any, **options: Any) -> bool:
            return is_last(worker)

        return instead_of(worker, CachedContextManager, "similarity", decide)
