"""The gather keeps the padding of uneven shards, so that a band is added to the picture."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from harness.plugins import Fault, Worker


class GatherUncropped(Fault):
    """Every part keeps the length of the longest."""

    name = "gather-uncropped"
    source = "https://github.com/ModelTC/LightX2V/issues/1164"
    cause = "cut/gather"
    needs = ("shards: uneven",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Return the padded part as it is."""
        from harness.spatial import shard

        return patch.object(shard, "crop", lambda part, dim, length: part)
