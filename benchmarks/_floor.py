"""The least a denoise step can take: its operations and bytes, over rates measured on this device.

A floor, not a forecast: operations run at the rate of a large matrix product, weights are read once at the rate
of a large copy, what ranks send each other travels at the rate of a large message, and everything else
(norms, rotary embedding, modulation, launches) is free.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from _launch import HERE, launch

from harness.models import full_size
from harness.planning.cut import pads_of
from harness.types import ModelSpec, ShardPlan

RATES = HERE / "_rates.py"
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PATCH_CHANNELS = 64
"""Of 2x2 cells of 16 channels."""
TIME_CHANNELS = 256
"""Width of the time embedding that modulates blocks, in models that are wider."""


@dataclass(frozen=True)
class Shapes:
    """A DiT's shapes, as its ``config.json`` has them."""

    dim: int
    layers: int
    refiners: int
    heads: int
    caption_width: int

    @classmethod
    def of(cls, model: ModelSpec) -> Shapes:
        """Read them off a checkpoint."""
        if model.path == full_size.PATH:
            config: dict[str, Any] = full_size.TRANSFORMER
        else:
            config = json.loads(Path(model.path, "transformer", "config.json").read_text(encoding="utf-8"))
        return cls(*(config[key] for key in ("dim", "n_layers", "n_refiner_layers", "n_heads", "cap_feat_dim")))

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer."""
        return int(self.dim / 3 * 8)

    def linear(self, tokens: float) -> float:
        """Operations of a block's matrices on some tokens: four projections, three feed-forward matrices."""
        return 2 * tokens * self.dim * (4 * self.dim + 3 * self.hidden)

    def attention(self, tokens: float, ranks: int = 1) -> float:
        """Operations of a block's attention of all tokens to all, on the heads of one rank."""
        return 4 * tokens**2 * self.dim / ranks

    def block_bytes(self, element_bytes: int) -> float:
        """Bytes of one block's weights."""
        return element_bytes * self.dim * (4 * self.dim + 3 * self.hidden + 4 * min(self.dim, TIME_CHANNELS))

    def weight_bytes(self, element_bytes: int) -> float:
        """Bytes of all blocks' weights, each read once in a step; the embedders are too small to count."""
        return (self.layers + 2 * self.refiners) * self.block_bytes(element_bytes)


@dataclass(frozen=True)
class Work:
    """What one rank has to do in one step; the slowest rank decides."""

    operations: float
    sent_bytes: float = 0.0


def single(shapes: Shapes, image_tokens: int, caption_tokens: int) -> Work:
    """One device: image tokens, caption tokens, and the pads of both."""
    image, caption = (tokens + pads_of(tokens) for tokens in (image_tokens, caption_tokens))
    return Work(_operations(shapes, image, caption, image, caption, 1))


def spatial(shapes: Shapes, plan: ShardPlan, caption_tokens: int, sent_bytes: float) -> Work:
    """The longest shard of a plan; the caption stands on every rank whole. Bytes are those it counted itself."""
    caption = caption_tokens + pads_of(caption_tokens)
    image, ranks = max(plan.sequence_lengths), len(plan.sequence_lengths)
    return Work(_operations(shapes, sum(plan.sequence_lengths), caption, image, caption, ranks), sent_bytes)


def even(shapes: Shapes, image_tokens: int, caption_tokens: int, ranks: int, sent_bytes: float) -> Work:
    """Both padded sequences in equal parts, as diffusers' context parallelism has them. Bytes are those counted."""
    image, caption = (tokens + pads_of(tokens) for tokens in (image_tokens, caption_tokens))
    operations = _operations(shapes, image, caption, image / ranks, caption / ranks, ranks, split_caption=True)
    return Work(operations, sent_bytes)


def _operations(
    shapes: Shapes, image: float, caption: float, own_image: float, own_caption: float, ranks: int,
    split_caption: bool = False,
) -> float:  # fmt: skip
    """Multiplications and additions of a forward, on one rank.

    Parameters
    ----------
    image, caption
        Tokens with their pads, of all ranks.
    own_image, own_caption
        Those of this rank.
    split_caption
        Whether the caption's refiners too share their heads out.
    """
    refiners = shapes.refiners * (
        shapes.linear(own_image)
        + shapes.attention(image, ranks)
        + shapes.linear(own_caption)
        + shapes.attention(caption, ranks if split_caption else 1)
    )
    main = shapes.layers * (shapes.linear(own_image + own_caption) + shapes.attention(image + caption, ranks))
    ends = 2 * shapes.dim * (own_image * PATCH_CHANNELS + own_caption * shapes.caption_width)
    ends += 2 * shapes.dim * PATCH_CHANNELS * (own_image + own_caption)
    return refiners + main + ends


@dataclass(frozen=True)
class Rates:
    """What this device can do, measured."""

    operations_per_s: float
    read_bytes_per_s: float
    sent_bytes_per_s: float

    def floor_s(self, work: Work, weight_bytes: float) -> float:
        """Least seconds of a step: computing and reading overlap, sending stands between the two."""
        computing = max(work.operations / self.operations_per_s, weight_bytes / self.read_bytes_per_s)
        return computing + work.sent_bytes / self.sent_bytes_per_s


def measure(device: str, dtype: str, ranks: int, quick: bool = False) -> dict[str, Rates]:
    """Measure rates with one rank at work and with all of them: cores and memory may be shared.

    The best rank counts: a floor wants what the device can do.
    """
    job = {"device": device, "dtype": dtype, "quick": quick}
    replies: Sequence[dict[str, Any]] = launch(RATES, job, ranks, ranks).replies
    best = {key: max(reply.get(key, 0.0) for reply in replies) for key in replies[0]}
    sent = best["all_sent_bytes_per_s"]
    return {
        "single": Rates(best["one_operations_per_s"], best["one_read_bytes_per_s"], sent),
        "split": Rates(best["all_operations_per_s"], best["all_read_bytes_per_s"], sent),
    }


def best(*measured: dict[str, Rates]) -> dict[str, Rates]:
    """The best of several measurements, rate by rate."""
    return {
        which: Rates(*(max(rates) for rates in zip(*(astuple(each[which]) for each in measured), strict=True)))
        for which in measured[0]
    }
