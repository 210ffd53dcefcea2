"""A step that the cache serves returns the prediction without guidance.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker
from harness.types import Case


class CacheServesUnguided(Fault):
    """Guidance in computed steps only."""

    name = "cache-serves-unguided"
    source = "https://github.com/vllm-project/vllm-omni/issues/4659"
    cause = "cache"
    needs = ("cache", "guidance")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Put the prediction for the prompt in the place of that for the negative one where layers were skipped."""
        import torch
        from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5

        from harness.spatial.pipeline import SpatialPipeline
        from harness.spatial.transformer import SpatialTransformer

        guided = computed = False

        def velocity(stock: Any, pipeline: Any, case: Case, *rest: Any) -> Any:
            nonlocal guided, computed
            guided, computed = case.guidance_scale > 0, False
            return stock(pipeline, case, *rest)

        def call(stock: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal computed
            computed = True
            return stock(*arguments, **options)

        def predict(stock: Any, *arguments: Any) -> Any:
            predicted = stock(*arguments)
            return torch.cat([predicted.chunk(2)[0]] * 2) if guided and not computed else predicted

        return together(
            instead_of(worker, SpatialPipeline, "_velocity", velocity, also_alone=True),
            instead_of(worker, CachedBlocks_Pattern_3_4_5, "call_Mn_blocks", call, also_alone=True),
            instead_of(worker, SpatialTransformer, "forward", predict, also_alone=True),
        )
