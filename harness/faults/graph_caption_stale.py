"""A recorded step reads the caption of the request it was recorded with: later ones lie at another address.

There a prompt changed at run time was ignored, or read from memory that had been given back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class GraphCaptionStale(Fault):
    """Later requests of the same shape are drawn by the first one's prompts."""

    name = "graph-caption-stale"
    source = "https://github.com/jcelerier/librediffusion/pull/14"
    cause = "caption"
    needs = ("graph", "second request: other negative prompt")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Leave the caption's buffer as it is."""
        from harness.spatial.steps import Recording

        return instead_of(worker, Recording, "take", _keep_caption)


def _keep_caption(stock: Any, recording: Any, conditions: Any) -> None:
    stock(recording, replace(conditions, caption=recording.conditions.caption))
