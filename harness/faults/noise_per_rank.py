"""Every rank draws noise from a seed of its own, and the halves of the picture do not belong together."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class NoisePerRank(Fault):
    """The shards begin with noise of different pictures."""

    name = "noise-per-rank"
    source = "https://github.com/vllm-project/vllm-omni/issues/1729"
    cause = "noise"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Add the rank to the seed."""
        from harness.spatial.pipeline import SpatialPipeline

        def draw(stock: Any, pipeline: Any, case: Case) -> Any:
            return stock(pipeline, replace(case, seed=case.seed + worker.rank))

        return instead_of(worker, SpatialPipeline, "_noise", draw)
