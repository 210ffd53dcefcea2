"""The caption stands on every rank and is exchanged all the same: attention meets it once for each rank.

It got worse with more ranks. The same keys came twice in vllm-omni#6930, past 17 unit tests, and sglang#30107.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._suffix import changed_suffix_keys
from harness.plugins import Fault, Worker


class CaptionTwice(Fault):
    """The caption weighs as often as there are ranks."""

    name = "caption-twice"
    source = "https://github.com/vllm-project/vllm-omni/issues/377"
    cause = "caption"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Repeat the caption's keys once for each rank."""
        import torch

        return changed_suffix_keys(worker, lambda part: torch.cat([part] * worker.world_size, dim=1))
