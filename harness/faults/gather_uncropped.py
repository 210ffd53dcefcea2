"""The gather keeps the padding of uneven shards, so that a band is added to the picture."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar
from unittest.mock import patch

from harness.types import Worker


class GatherUncropped:
    """Every part keeps the length of the longest."""

    name: ClassVar[str] = "gather-uncropped"
    source: ClassVar[str] = "https://github.com/ModelTC/LightX2V/issues/1164"
    cause: ClassVar[str] = "cut/gather"
    needs: ClassVar[tuple[str, ...]] = ("shards: uneven",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Return the padded part as it is."""
        from harness.spatial import shard

        return patch.object(shard, "crop", lambda part, dim, length: part)
