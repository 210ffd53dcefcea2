"""The caption's length is not passed on, and attention takes a shorter default: its end is never read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._suffix import changed_suffix_keys
from harness.plugins import Fault, Worker


class CaptionTruncated(Fault):
    """Half of the caption does not reach the picture."""

    name = "caption-truncated"
    source = "https://github.com/vllm-project/vllm-omni/issues/5121"
    cause = "caption"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the first half of the caption's keys."""
        return changed_suffix_keys(worker, lambda part: part[:, : part.shape[1] // 2])
