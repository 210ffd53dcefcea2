"""The picture is decoded shard by shard, so that the decoder sees no neighbours at the borders.

The real one tiled the decoder inside shards; a band at the bottom showed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class DecodePerShard(Fault):
    """Latents are right, the picture has seams."""

    name = "decode-per-shard"
    source = "https://github.com/sgl-project/sglang/issues/34514"
    cause = "decode"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Decode as many bands as there are ranks, and put them under one another."""
        from harness.spatial.pipeline import SpatialPipeline

        def decode(stock: Any, pipeline: Any, latents: Any) -> Any:
            bands = [stock(pipeline, band) for band in latents.chunk(worker.world_size, dim=2)]
            return [_stacked(pictures) for pictures in zip(*bands, strict=True)]

        return instead_of(worker, SpatialPipeline, "_decode", decode)


def _stacked(pictures: Sequence[Any]) -> Any:
    from PIL import Image

    whole = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole
