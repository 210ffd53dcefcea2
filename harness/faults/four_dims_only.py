"""The dimension to cut is counted from the front, as if all latents had four dimensions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class FourDimsOnly(Fault):
    """Cutting works, gathering a trajectory of five dimensions raises."""

    name = "four-dims-only"
    source = "https://github.com/sgl-project/sglang/pull/16418"
    cause = "crash"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Take dimensions 2 and 3 for height and width."""
        from harness.spatial import shard

        return instead_of(worker, shard, "shard_dim", lambda stock, plan: 2 if plan.axis == "h" else 3)
