"""Embeddings are kept by the prompt alone: with another negative prompt the former one's are taken again.

The first request is right. The real key left out the model and its precision; a negative prompt stands for them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import Case


class EmbeddingsByPrompt(Fault):
    """Guidance away from what an earlier request asked to avoid."""

    name = "embeddings-by-prompt"
    source = "https://github.com/kijai/ComfyUI-WanVideoWrapper/issues/2046"
    cause = "caption"
    needs = ("second request: other negative prompt",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep embeddings over requests."""
        from harness.spatial.pipeline import SpatialPipeline

        return instead_of(worker, SpatialPipeline, "_encode", _keep)


_kept: dict[tuple[str, ...], Any] = {}


def _keep(stock: Any, pipeline: Any, case: Case) -> Any:
    if case.prompts not in _kept:
        _kept[case.prompts] = stock(pipeline, case)
    return _kept[case.prompts]
