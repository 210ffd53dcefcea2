"""The option under test is not on: nothing is split, and every rank draws the whole picture alone.

Where there are no surplus pads the picture is right. Only a look at what was exchanged tells.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class NothingSplit(Fault):
    """All ranks are busy, and none of them with a part."""

    name = "nothing-split"
    source = "https://github.com/vllm-project/vllm-omni/issues/5449"
    cause = "not engaged"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Draw by the plan of one device, in a group of one rank."""
        from harness.planning.cut import cut
        from harness.spatial.group import SequenceGroup
        from harness.spatial.pipeline import SpatialPipeline
        from harness.spatial.transformer import SpatialTransformer

        def call(stock: Any, pipeline: Any, case: Case, plan: Any, *rest: Any) -> Any:
            alone = SequenceGroup()
            transformer = SpatialTransformer(pipeline.pipeline.transformer, alone)
            with patch.object(pipeline, "group", alone), patch.object(pipeline, "transformer", transformer):
                drawing = stock(pipeline, case, cut(case.size, 1, "h"), *rest)
            return drawing if worker.rank == 0 else None

        return instead_of(worker, SpatialPipeline, "__call__", call)
