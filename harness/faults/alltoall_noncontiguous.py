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


def _send_memory(stock: Any, chunks: Sequence[Sequence[Any]], *rest: Any, **options: Any) -> Any:
    return stock([[_as_it_lies(part) for part in parts] for parts in chunks], *rest, **options)


def _as_it_lies(part: Any) -> Any:
    return part.as_strided((part.numel(),), (1,), part.storage_offset()).view(part.shape)
