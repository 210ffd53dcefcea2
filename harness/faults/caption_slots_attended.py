"""All slots of the tokenizer's output are handed to the transformer, those that no word fills included.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import hooked, instead_of
from harness.plugins import Fault, Worker


class CaptionSlotsAttended(Fault):
    """The picture reads embeddings of padding."""

    name = "caption-slots-attended"
    source = "https://github.com/NVIDIA/TensorRT-Model-Connect/issues/386"
    cause = "caption"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Set the mask by which the pipeline picks embeddings, once the text is encoded."""
        from harness.spatial.pipeline import SpatialPipeline

        def encode(stock: Any, pipeline: Any, case: Any) -> Any:
            with hooked(pipeline.pipeline.text_encoder, _take_all):
                return stock(pipeline, case)

        return instead_of(worker, SpatialPipeline, "_encode", encode, also_alone=True)


def _take_all(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
    options["attention_mask"].fill_(True)
