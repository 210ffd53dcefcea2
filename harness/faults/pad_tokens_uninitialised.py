"""The learned pad tokens are not in the checkpoint that is loaded, and stay what memory happened to hold.

It is there on one device too, and no two processes are alike. Here a seed stands for what memory held, so that a
run can be repeated.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from harness.faults._planting import instead_of, other_parameter, together
from harness.plugins import Fault, Worker


class PadTokensUninitialised(Fault):
    """As many pads as there should be, of other values on every rank."""

    name = "pad-tokens-uninitialised"
    source = "https://github.com/huggingface/diffusers/pull/13805"
    cause = "weights"
    needs = ("pads: as on one device",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Replace the pad tokens of image and caption by random ones of this process."""
        from harness.spatial.transformer import SpatialTransformer

        seed = 10 * worker.world_size + worker.rank
        return together(
            instead_of(worker, SpatialTransformer, "prepare", partial(_compute, seed), also_alone=True),
            instead_of(worker, SpatialTransformer, "forward", partial(_compute, seed), also_alone=True),
        )


def _compute(seed: int, stock: Any, transformer: Any, *arguments: Any) -> Any:
    import torch

    def unset(token: Any) -> Any:
        return torch.randn(token.shape, generator=torch.Generator().manual_seed(seed)).to(token)

    image, caption = transformer.source, transformer.caption_encoder
    with other_parameter(image, "x_pad_token", unset), other_parameter(caption, "pad_token", unset):
        return stock(transformer, *arguments)
