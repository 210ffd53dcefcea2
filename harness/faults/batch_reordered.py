"""The result of the all-to-all is read with the sequence before the batch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class BatchReordered(Fault):
    """With one picture it is the same; with more, their tokens mix."""

    name = "batch-reordered"
    source = "https://github.com/deepspeedai/DeepSpeed/issues/5808"
    cause = "exchange"
    needs = ("batch",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Read ``S,B`` as ``B,S``."""
        from harness.spatial import attention

        return instead_of(worker, attention, "tokens_to_heads", _mix)


def _mix(stock: Any, *arguments: Any) -> Any:
    return [[shard.transpose(0, 1).reshape(shard.shape) for shard in shards] for shards in stock(*arguments)]
