"""The time step is rounded to bfloat16 before it is embedded: 750 of 1000 becomes 752.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class TimestepRounded(Fault):
    """The model is told another time than the scheduler steps by."""

    name = "timestep-rounded"
    source = "https://github.com/huggingface/diffusers/issues/9405"
    cause = "schedule"
    needs = ("steps: more than 1",)  # the first of all is exact

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Round the time step that predictions are made for."""
        from harness.spatial.pipeline import SpatialPipeline

        def velocity(stock: Any, pipeline: Any, case: Case, latents: Any, t: Any, step: Any) -> Any:
            return stock(pipeline, case, latents, t.bfloat16().to(t.dtype), step)

        return instead_of(worker, SpatialPipeline, "_velocity", velocity, also_alone=True)
