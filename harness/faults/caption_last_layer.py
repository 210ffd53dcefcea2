"""The caption is the text encoder's last hidden layer instead of the last but one.

It is there on one device too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import hooked, instead_of
from harness.plugins import Fault, Worker


class CaptionLastLayer(Fault):
    """As many caption tokens as there should be, each with another value."""

    name = "caption-last-layer"
    source = "https://github.com/NVIDIA/TensorRT-Model-Connect/issues/386"
    cause = "caption"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Append a layer to those that the text encoder returns, so that the last but one is its last."""
        from harness.spatial.pipeline import SpatialPipeline

        def encode(stock: Any, pipeline: Any, case: Any) -> Any:
            with hooked(pipeline.pipeline.text_encoder, _append_layer):
                return stock(pipeline, case)

        return instead_of(worker, SpatialPipeline, "_encode", encode, also_alone=True)


def _append_layer(module: Any, arguments: Any, options: Any, output: Any) -> Any:
    output.hidden_states = (*output.hidden_states, output.hidden_states[-1])
    return output
