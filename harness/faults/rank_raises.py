"""The last rank raises in the middle of a collective, and the others wait for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar
from unittest.mock import patch

from harness.types import Worker


class RankRaises:
    """One rank ends its request with an exception of its own."""

    name: ClassVar[str] = "rank-raises"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/pull/16418"
    cause: ClassVar[str] = "crash"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Raise instead of exchanging, on the last rank alone."""
        from harness.spatial import attention

        if worker.world_size == 1 or worker.rank < worker.world_size - 1:
            return nullcontext()
        return patch.object(attention, "all_to_all", _raise)


def _raise(*arguments: Any) -> None:
    raise RuntimeError("planted: this rank does not exchange")
