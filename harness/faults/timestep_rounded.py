"""The time step is rounded to bfloat16 before it is embedded: 750 of 1000 becomes 752.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class TimestepRounded(Fault):
    """The model is told another time than the scheduler steps by."""

    name = "timestep-rounded"
    source = "https://github.com/huggingface/diffusers/issues/9405"
    cause = "schedule"
    needs = ("steps: more than 1",)  # the first of all is exact

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Round the time step."""
        from harness.spatial.transformer import SpatialTransformer

        def predict(stock: Any, transformer: Any, latents: Any, timestep: Any, *rest: Any) -> Any:
            return stock(transformer, latents, timestep.bfloat16().to(timestep.dtype), *rest)

        return instead_of(worker, SpatialTransformer, "forward", predict, also_alone=True)
