"""The exchange shares heads by four, which the model's heads do not divide by.

The real one met 30 heads with 4 ranks. Here a Ulysses degree that does not divide the heads is a skip, so the
degree alone cannot bring it about.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class HeadsIndivisible(Fault):
    """It raises before anything is sent."""

    name = "heads-indivisible"
    source = "https://github.com/vipshop/cache-dit/issues/546"
    cause = "crash"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """View the heads as four shares."""
        from harness.spatial import attention

        return instead_of(worker, attention, "_to_heads", _share_by_four)


def _share_by_four(stock: Any, parts: Any, *rest: Any) -> Any:
    for part in parts:
        part.unflatten(2, (4, -1))
    return stock(parts, *rest)
