"""The attention mask is not passed on, with one rank or several.

Found in release 0.7.0 by running it. An engine compared with itself hides it: the baseline has to be another one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class MaskDropped(Fault):
    """The filling of shorter captions is attended to."""

    name = "mask-dropped"
    source = "https://github.com/xdit-project/xDiT"
    cause = "mask"
    needs = ("guidance", "captions of a batch: different buckets")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Attend without a mask."""
        from harness.spatial import attention

        def attend(stock: Any, query: Any, key: Any, value: Any, key_mask: Any) -> Any:
            return stock(query, key, value, None)

        return instead_of(worker, attention, "attend", attend, also_alone=True)
