"""Recordings are found by the size of the picture, whatever the caption's length, which is that of the first request.

The thread asks what becomes of a graph when the prompt grows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class GraphBucketFrozen(Fault):
    """Longer captions are cut off, and shorter ones keep the end of the first."""

    name = "graph-bucket-frozen"
    source = "https://github.com/sgl-project/sglang/pull/19876"
    cause = "caption"
    needs = ("graph", "second request: other bucket")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Leave the conditions' shapes out of the key, and fill the buffers as far as they go."""
        from harness.spatial import steps

        return together(
            instead_of(worker, steps, "key_of", lambda stock, latents, conditions: (conditions.plan, latents.shape)),
            instead_of(worker, steps.Recording, "take", _fill),
        )


def _fill(stock: Any, recording: Any, conditions: Any) -> None:
    for buffer, given in zip(recording.conditions.tensors, conditions.tensors, strict=False):
        length = min(buffer.shape[1], given.shape[1])
        buffer[:, :length].copy_(given[:, :length])
