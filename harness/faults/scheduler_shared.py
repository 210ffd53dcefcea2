"""One scheduler serves requests of different step counts: a later one is denoised by the steps of the first.

The real ones were in flight together; here one comes after the other.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class SchedulerShared(Fault):
    """A request of fewer steps ends before its noise does."""

    name = "scheduler-shared"
    source = "https://github.com/sgl-project/sglang/issues/23716"
    cause = "schedule"
    needs = ("second request: other step count",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the first schedule over requests."""
        from harness.spatial.pipeline import SpatialPipeline

        return instead_of(worker, SpatialPipeline, "_timesteps", _keep)


_kept: dict[int, tuple[Any, Any]] = {}


def _keep(stock: Any, pipeline: Any, case: Case) -> Any:
    timesteps, scheduler = stock(pipeline, case), pipeline.pipeline.scheduler
    timesteps, scheduler.sigmas = _kept.setdefault(pipeline.group.whole.size, (timesteps, scheduler.sigmas))
    return timesteps[: case.steps]
