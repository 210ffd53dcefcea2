"""Every rank numbers its rows from zero: the RoPE offset of the shard's origin is lost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from harness.plugins import Fault, Worker


class RopeOriginDropped(Fault):
    """All shards claim to stand at the picture's top left."""

    name = "rope-origin-dropped"
    source = "https://github.com/sgl-project/sglang/pull/20679"
    cause = "position"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Place every shard's first token at (0, 0)."""
        from harness.spatial import tokens

        return patch.object(tokens, "origin", lambda plan, rank: (0, 0))
