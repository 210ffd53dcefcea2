"""The caption's length is not passed on, and attention takes a shorter default: its end is never read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._suffix import changed_suffix_keys
from harness.types import Worker


class CaptionTruncated:
    """Half of the caption does not reach the picture."""

    name: ClassVar[str] = "caption-truncated"
    source: ClassVar[str] = "https://github.com/vllm-project/vllm-omni/issues/5121"
    cause: ClassVar[str] = "caption"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the first half of the caption's keys."""
        return changed_suffix_keys(worker, lambda part: part[:, : part.shape[1] // 2])
