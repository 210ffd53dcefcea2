"""Every rank numbers its rows from zero: the RoPE offset of the shard's origin is lost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar
from unittest.mock import patch

from harness.types import Worker


class RopeOriginDropped:
    """All shards claim to stand at the picture's top left."""

    name: ClassVar[str] = "rope-origin-dropped"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/pull/20679"
    cause: ClassVar[str] = "position"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Place every shard's first token at (0, 0)."""
        from harness.spatial import tokens

        return patch.object(tokens, "origin", lambda plan, rank: (0, 0))
