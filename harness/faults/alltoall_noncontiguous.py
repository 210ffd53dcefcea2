"""A view that is not contiguous is handed to the all-to-all, which sends its memory as it lies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class AlltoallNoncontiguous(Fault):
    """Elements of other heads arrive, and nothing is said."""

    name = "alltoall-noncontiguous"
    source = "https://github.com/pytorch/pytorch/issues/141816"
    cause = "exchange"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Send as many elements from a chunk's first one on."""
        from harness.spatial import attention

        return instead_of(worker, attention, "all_to_all", _send_memory)


def _send_memory(stock: Any, chunks: Sequence[Any], received: Any, group: Any) -> Any:
    lying = [chunk.as_strided((chunk.numel(),), (1,), chunk.storage_offset()) for chunk in chunks]
    return stock(lying, received, group)
