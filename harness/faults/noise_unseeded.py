"""Under a split the request's generator is forgotten: every rank draws noise that nobody seeded.

The halves were inconsistent, and differently so each time.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class NoiseUnseeded(Fault):
    """No two runs are alike."""

    name = "noise-unseeded"
    source = "https://github.com/vllm-project/vllm-omni/issues/1729"
    cause = "non-determinism"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Take a seed from the operating system."""
        from harness.spatial.pipeline import SpatialPipeline

        def draw(stock: Any, pipeline: Any, case: Case) -> Any:
            return stock(pipeline, replace(case, seed=int.from_bytes(os.urandom(4), "big")))

        return instead_of(worker, SpatialPipeline, "_noise", draw)
