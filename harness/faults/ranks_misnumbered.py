"""A group takes its ranks for consecutive ones: from the third on, parts come back in another order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._planting import instead_of
from harness.types import Worker


class RanksMisnumbered:
    """Two parts of the picture change places, with three ranks or more."""

    name: ClassVar[str] = "ranks-misnumbered"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/issues/16532"
    cause: ClassVar[str] = "cut/gather"
    needs: ClassVar[tuple[str, ...]] = ("ranks: 3",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Reverse all ranks but the first in the gather's order."""
        from harness.spatial import shard

        return instead_of(worker, shard, "gather_order", lambda stock, group: [0, *range(group.size - 1, 0, -1)])
