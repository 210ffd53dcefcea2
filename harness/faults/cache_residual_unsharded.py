"""The cache subtracts a shard from the whole: the output of a cached layer is gathered, its input is not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CacheResidualUnsharded(Fault):
    """The shapes of the two do not fit."""

    name = "cache-residual-unsharded"
    source = "https://github.com/vipshop/cache-dit/issues/1094"
    cause = "crash"
    needs = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Return the tokens of all ranks from each cached layer."""
        import torch
        from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5

        def whole(stock: Any, blocks: Any, output: Any) -> Any:
            hidden, encoder_hidden = stock(blocks, output)
            return torch.cat([hidden] * worker.world_size, dim=1), encoder_hidden

        return instead_of(worker, CachedBlocks_Pattern_3_4_5, "_process_block_outputs", whole)
