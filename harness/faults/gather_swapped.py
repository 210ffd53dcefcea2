"""The gather concatenates the shards of ranks 0 and 1 in the wrong order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from harness.plugins import Fault, Worker


class GatherSwapped(Fault):
    """Two parts of the picture change places."""

    name = "gather-swapped"
    source = "https://github.com/sgl-project/sglang/pull/21042"
    cause = "cut/gather"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Swap the first two ranks in the gather's order."""
        from harness.spatial import shard

        return patch.object(shard, "gather_order", lambda group: [1, 0, *range(2, group.size)])
