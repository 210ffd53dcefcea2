"""Shards are padded with zeros instead of the learned pad token.

Release 0.7.0 attends to zeros where a sequence does not divide.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class PadsZeroed(Fault):
    """As many pads as there should be, of another kind."""

    name = "pads-zeroed"
    source = "https://github.com/xdit-project/xDiT"
    cause = "pads"
    needs = ("pads: as on one device",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Clear the pads of the embedded image."""
        from harness.spatial.transformer import SpatialTransformer

        return instead_of(worker, SpatialTransformer, "_embed_image", _clear_pads)


def _clear_pads(stock: Any, transformer: Any, latents: Any, length: int) -> Any:
    from harness.spatial.tokens import patchify

    embedded = stock(transformer, latents, length)
    embedded[:, patchify(latents).shape[1] :] = 0.0
    return embedded
