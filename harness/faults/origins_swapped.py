"""The first two ranks take each other's place in the picture for their positions.

The real one took ranks of a group for consecutive ones, and gave them the wrong place.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class OriginsSwapped(Fault):
    """Both shards claim to stand where the other does."""

    name = "origins-swapped"
    source = "https://github.com/sgl-project/sglang/issues/16532"
    cause = "position"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Swap the origins of ranks 0 and 1."""
        from harness.spatial import tokens

        return instead_of(worker, tokens, "origin", lambda stock, plan, rank: stock(plan, {0: 1, 1: 0}.get(rank, rank)))
