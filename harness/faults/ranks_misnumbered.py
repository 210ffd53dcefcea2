"""A group takes its ranks for consecutive ones: from the third on, parts come back in another order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class RanksMisnumbered(Fault):
    """Two parts of the picture change places, with three ranks or more."""

    name = "ranks-misnumbered"
    source = "https://github.com/sgl-project/sglang/issues/16532"
    cause = "cut/gather"
    needs = ("ranks: 3",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Reverse all ranks but the first in the gather's order."""
        from harness.spatial import shard

        return instead_of(worker, shard, "gather_order", lambda stock, group: [0, *range(group.size - 1, 0, -1)])
