"""Attention stays local: each rank meets its own tokens only. Two pictures and a seam."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._local import attend_locally
from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class AttentionLocal(Fault):
    """Nothing is exchanged."""

    name = "attention-local"
    source = "https://github.com/huggingface/diffusers/issues/12443"
    cause = "exchange"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Attend as if each shard were the whole picture."""
        from harness.spatial.attention import SequenceParallelAttention

        return instead_of(worker, SequenceParallelAttention, "forward", attend_locally)
