"""The last rank raises in the middle of a collective, and the others wait for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

from harness.plugins import Fault, Worker


class RankRaises(Fault):
    """One rank ends its request with an exception of its own."""

    name = "rank-raises"
    source = "https://github.com/sgl-project/sglang/pull/16418"
    cause = "crash"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Raise instead of exchanging, on the last rank alone."""
        from harness.spatial import attention

        if worker.world_size == 1 or worker.rank < worker.world_size - 1:
            return nullcontext()
        return patch.object(attention, "all_to_all", _raise)


def _raise(*arguments: Any, **options: Any) -> None:
    raise RuntimeError("planted: this rank does not exchange")
