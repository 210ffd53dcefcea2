"""Both halves of guidance share one state of the cache: what the negative half leaves serves the positive one too.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CacheSharedByHalves(Fault):
    """Served steps move the prompt's half by the negative prompt's residual."""

    name = "cache-shared-by-halves"
    source = "https://github.com/vllm-project/vllm-omni/pull/5287"
    cause = "cache"
    needs = ("cache", "guidance")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the residual of the second half for both."""
        from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager

        return instead_of(worker, CachedContextManager, "set_Bn_buffer", _keep_the_second, also_alone=True)


def _keep_the_second(stock: Any, manager: Any, residual: Any, **options: Any) -> None:
    import torch

    halves = residual.chunk(2)
    stock(manager, torch.cat([halves[-1]] * len(halves)), **options)
