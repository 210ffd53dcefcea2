"""A picture is copied out of a buffer before its last rows are written: they are those of the former picture.

The first request is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import PIXELS_PER_TOKEN


class FormerRowsKept(Fault):
    """Latents are right, the picture ends in another one."""

    name = "former-rows-kept"
    source = "https://github.com/vllm-project/vllm-omni/issues/5782"
    cause = "decode"
    needs = ("second request: equal shape",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep pictures over requests, and take the last line of tokens from them."""
        from harness.spatial.pipeline import SpatialPipeline

        return instead_of(worker, SpatialPipeline, "_decode", _decode)


_former: list[Any] = []


def _decode(stock: Any, pipeline: Any, latents: Any) -> list[Any]:
    pictures = stock(pipeline, latents)
    shown = [_with_last_rows(*pair) for pair in zip(pictures, _former or pictures, strict=False)]
    _former[:] = pictures
    return shown


def _with_last_rows(picture: Any, former: Any) -> Any:
    if picture.size != former.size:
        return picture
    box: Sequence[int] = (0, picture.height - PIXELS_PER_TOKEN, picture.width, picture.height)
    shown = picture.copy()
    shown.paste(former.crop(box), tuple(box))
    return shown
