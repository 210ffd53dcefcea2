"""The caption is cut like the picture, though every rank needs all of it.

The picture drifted away from its prompt.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._suffix import changed_suffix_keys
from harness.types import Worker


class CaptionSharded:
    """Each rank's heads read a part of the caption."""

    name: ClassVar[str] = "caption-sharded"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/issues/17301"
    cause: ClassVar[str] = "caption"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep this rank's share of the caption's keys."""

        def share(part: Any) -> Any:
            return part.chunk(worker.world_size, dim=1)[worker.rank]

        return changed_suffix_keys(worker, share)
