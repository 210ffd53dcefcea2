"""A guidance scale of 0 is taken for one that was not given, and replaced by the default of 1.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class GuidanceZeroIsOne(Fault):
    """Guidance that is switched off is applied all the same."""

    name = "guidance-zero-is-one"
    source = "https://github.com/vllm-project/vllm-omni/issues/5056"
    cause = "guidance"
    needs = ("no guidance",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Read the scale with ``or``."""
        from harness.spatial.pipeline import SpatialPipeline

        def call(stock: Any, pipeline: Any, case: Case, *rest: Any) -> Any:
            return stock(pipeline, replace(case, guidance_scale=case.guidance_scale or 1.0), *rest)

        return instead_of(worker, SpatialPipeline, "__call__", call, also_alone=True)
