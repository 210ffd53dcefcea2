"""The time steps are the scheduler's defaults instead of those of the model's own sigmas.

It is there on one device too, with more than one step.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class ScheduleOfDefaults(Fault):
    """The picture is denoised along another schedule, equally on every rank."""

    name = "schedule-of-defaults"
    source = "https://github.com/sgl-project/sglang/issues/29742"
    cause = "schedule"
    needs = ("steps: more than 1",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Do not pass the sigmas on."""
        from harness.spatial import pipeline

        def retrieve(stock: Any, *arguments: Any, sigmas: Any, **options: Any) -> Any:
            return stock(*arguments, **options)

        return instead_of(worker, pipeline, "retrieve_timesteps", retrieve, also_alone=True)
