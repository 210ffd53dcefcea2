"""The gathered tensor is a transposed view: contiguous for one picture, not for two."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class GatherNoncontiguous(Fault):
    """A batch raises."""

    name = "gather-noncontiguous"
    source = "https://github.com/sgl-project/sglang/issues/39291"
    cause = "crash"
    needs = ("batch",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Gather the transposed part without copying it."""
        from harness.spatial import shard

        return instead_of(worker, shard, "all_gather", _gather_a_view)


def _gather_a_view(stock: Any, part: Any, group: Any) -> Any:
    turned = part.transpose(0, 1)
    flat = turned.view(-1)  # raises where this is no contiguous piece of memory
    return [gathered.view(turned.shape).transpose(0, 1) for gathered in stock(flat, group)]
