"""The gather concatenates the shards of ranks 0 and 1 in the wrong order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar
from unittest.mock import patch

from harness.types import Worker


class GatherSwapped:
    """Two parts of the picture change places."""

    name: ClassVar[str] = "gather-swapped"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/pull/21042"
    cause: ClassVar[str] = "cut/gather"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Swap the first two ranks in the gather's order."""
        from harness.spatial import shard

        return patch.object(shard, "gather_order", lambda group: [1, 0, *range(2, group.size)])
