"""Options that change how a picture is computed and nothing of the mathematics.

A harness that fails a row for one of them is wrong itself (``matrices/benign.toml``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import patch

from harness.plugins import Option

OPTIONS = {
    "threads": Option(int, 1, "threads of torch in each rank", ge=1),
    "attention": Option(
        str, "native", "back end of diffusers' attention dispatcher, of those a CPU has", ("native", "_native_math")
    ),
    "keys": Option(
        str, "forward", "keys and values in attention: as they are, reversed, twice", ("forward", "reversed", "twice")
    ),
    "batch": Option(str, "whole", "items that the transformer computes at once", ("whole", "one by one")),
    "feed_forward": Option(str, "weights", "type of the feed-forward: that of the weights", ("weights", "float32")),
    "norms": Option(
        str, "diffusers", "RMS norms: by diffusers' module, or by torch's one kernel", ("diffusers", "fused")
    ),
}


@contextmanager
def applied(options: Mapping[str, Any]) -> Iterator[None]:
    """Compute one request by these options."""
    with ExitStack() as stack:
        if "threads" in options:
            stack.enter_context(_threads(options["threads"]))
        if "attention" in options:
            from diffusers.models.attention_dispatch import attention_backend

            stack.enter_context(attention_backend(options["attention"]))
        if options.get("keys") in _KEYS:
            stack.enter_context(_keys(_KEYS[options["keys"]]))
        if options.get("batch") == "one by one":
            stack.enter_context(_one_by_one())
        if options.get("feed_forward") == "float32":
            stack.enter_context(_feed_forward_in_float32())
        if options.get("norms") == "fused":
            stack.enter_context(_fused_norms())
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_KEYS: Mapping[str, Callable[[Any], Any]] = {
    "reversed": lambda part: part.flip(1),
    "twice": lambda part: part.repeat(1, 2, *[1] * (part.dim() - 2)),
}
"""Changes of dimension 1 of keys, values and their mask that leave attention as it is."""


def _keys(change: Callable[[Any], Any]) -> Any:
    from harness.spatial import attention

    stock = attention.attend

    def attend(query: Any, key: Any, value: Any, key_mask: Any) -> Any:
        return stock(query, change(key), change(value), None if key_mask is None else change(key_mask))

    return patch.object(attention, "attend", attend)


def _one_by_one() -> Any:
    import torch

    from harness.spatial.transformer import Conditions, SpatialTransformer

    stock = SpatialTransformer.forward

    def forward(transformer: Any, latents: Any, timestep: Any, conditions: Any) -> Any:
        items = zip(*(tensor.split(1) for tensor in (latents, timestep, *conditions.tensors)), strict=True)
        return torch.cat([stock(transformer, part, t, Conditions(conditions.plan, *own)) for part, t, *own in items])

    return patch.object(SpatialTransformer, "forward", forward)


def _feed_forward_in_float32() -> Any:
    from diffusers.models.transformers.transformer_z_image import FeedForward

    stock: Any = FeedForward.forward

    def forward(module: Any, x: Any) -> Any:
        return stock(deepcopy(module).float(), x.float()).type_as(x)

    return patch.object(FeedForward, "forward", forward)


def _fused_norms() -> Any:
    from diffusers.models.normalization import RMSNorm
    from torch.nn import functional

    def forward(norm: Any, x: Any) -> Any:
        return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)

    return patch.object(RMSNorm, "forward", forward)
