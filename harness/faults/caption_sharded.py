"""The caption is cut like the picture, though every rank needs all of it.

The picture drifted away from its prompt.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._suffix import changed_suffix_keys
from harness.plugins import Fault, Worker


class CaptionSharded(Fault):
    """Each rank's heads read a part of the caption."""

    name = "caption-sharded"
    source = "https://github.com/sgl-project/sglang/issues/17301"
    cause = "caption"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep this rank's share of the caption's keys."""

        def share(part: Any) -> Any:
            return part.chunk(worker.world_size, dim=1)[worker.rank]

        return changed_suffix_keys(worker, share)
