"""The cache subtracts a shard from the whole: the output of a cached layer is gathered, its input is not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._planting import instead_of
from harness.types import Worker


class CacheResidualUnsharded:
    """The shapes of the two do not fit."""

    name: ClassVar[str] = "cache-residual-unsharded"
    source: ClassVar[str] = "https://github.com/vipshop/cache-dit/issues/1094"
    cause: ClassVar[str] = "crash"
    needs: ClassVar[tuple[str, ...]] = ("cache",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Return the tokens of all ranks from each cached layer."""
        import torch
        from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5

        def whole(stock: Any, blocks: Any, output: Any) -> Any:
            hidden, encoder_hidden = stock(blocks, output)
            return torch.cat([hidden] * worker.world_size, dim=1), encoder_hidden

        return instead_of(worker, CachedBlocks_Pattern_3_4_5, "_process_block_outputs", whole)
