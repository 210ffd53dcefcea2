"""A recorded step keeps the mask of the request it was recorded with.

There the mask was cast to another type at every call, so that what was written later never reached the graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class GraphMaskFrozen(Fault):
    """Later requests of the same shape meet what fills up the first one's captions."""

    name = "graph-mask-frozen"
    source = "https://github.com/vllm-project/vllm/pull/51994"
    cause = "mask"
    needs = ("graph", "second request: captions exchanged")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Leave the mask's buffer as it is."""
        from harness.spatial.steps import Recording

        return instead_of(worker, Recording, "take", _keep_mask)


def _keep_mask(stock: Any, recording: Any, conditions: Any) -> None:
    stock(recording, replace(conditions, key_mask=recording.conditions.key_mask))
