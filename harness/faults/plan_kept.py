"""The gather takes the plan of the first request for all that follow.

That is why the real gather is handed its request; only a second request of another shape shows it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class PlanKept(Fault):
    """A later request is put together as an earlier one was cut."""

    name = "plan-kept"
    source = "https://github.com/sgl-project/sglang/pull/21042"
    cause = "crash"
    needs = ("second request", "orientation: portrait")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the first plan over requests."""
        from harness.spatial import shard

        return instead_of(worker, shard, "gather", _gather_by_the_first)


_kept: dict[int, Any] = {}


def _gather_by_the_first(stock: Any, local: Any, plan: Any, group: Any) -> Any:
    return stock(local, _kept.setdefault(group.size, plan), group)
