"""Latents are kept in bfloat16 between the steps, whatever was asked for.

It is there on one device too. Under bfloat16 weights it is a bug as well: the model's own pipeline keeps latents in
float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class LatentsHalfPrecision(Fault):
    """Noise, and what each step makes of it, are rounded."""

    name = "latents-half-precision"
    source = "https://github.com/vllm-project/vllm-omni/issues/1393"
    cause = "noise"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Round the noise and the predictions; the scheduler returns the type of the latter."""
        from harness.spatial.pipeline import SpatialPipeline

        def rounded(stock: Any, *arguments: Any) -> Any:
            return stock(*arguments).bfloat16()

        return together(
            instead_of(worker, SpatialPipeline, "_noise", rounded, also_alone=True),
            instead_of(worker, SpatialPipeline, "_velocity", rounded, also_alone=True),
        )
