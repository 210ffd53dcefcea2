"""Requests: a matrix, its cases and variants, and the models they name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.types.comparison import Bound, Relation
from harness.types.values import (
    PIXELS_PER_TOKEN,
    Axis,
    Cache,
    Device,
    DType,
    GoldenPolicy,
    Layout,
    digest_of,
)


@dataclass(frozen=True, order=True)
class Size:
    """Size of a picture in pixels, always written ``WIDTHxHEIGHT``."""

    width_px: int
    height_px: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read ``"1280x720"``.

        Raises
        ------
        ValueError
            If the text is not WIDTHxHEIGHT, or a side is zero or no multiple of 16.
        """
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
        if not match:
            raise ValueError(f"size {text!r} is not WIDTHxHEIGHT in pixels; write for example '720x1280'")
        width, height = int(match[1]), int(match[2])
        for side in (width, height):
            if side == 0 or side % PIXELS_PER_TOKEN:
                nearest = max(PIXELS_PER_TOKEN, round(side / PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN)
                raise ValueError(
                    f"size {text!r}: {side} is no positive multiple of {PIXELS_PER_TOKEN}; the nearest is {nearest}"
                )
        return cls(width, height)

    @property
    def tokens_h(self) -> int:
        """Rows of image tokens."""
        return self.height_px // PIXELS_PER_TOKEN

    @property
    def tokens_w(self) -> int:
        """Columns of image tokens."""
        return self.width_px // PIXELS_PER_TOKEN

    @property
    def tokens(self) -> int:
        """Image tokens, without pads."""
        return self.tokens_h * self.tokens_w

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True)
class Case:
    """A picture to draw, independent of how it is computed (:class:`Variant`)."""

    name: str
    model: str
    size: Size
    prompts: tuple[str, ...]
    revision: str | None = None
    negative_prompts: tuple[str, ...] = ()
    seed: int = 0
    steps: int = 4
    guidance_scale: float = 0.0
    num_images_per_prompt: int = 1
    dtype: DType = "float32"
    device: Device = "cpu"
    sequence: str | None = None
    """Cases of one sequence are served by one resident engine, in the order of the file."""
    golden: GoldenPolicy = "required"
    timeout_s: float = 120.0

    def identity(self) -> dict[str, Any]:
        """Fields that decide the picture: all but name, sequence, time limit and golden policy."""
        fields = asdict(self)
        for key in ("name", "sequence", "golden", "timeout_s"):
            del fields[key]
        return fields

    @property
    def key(self) -> str:
        """Name and identity, ``720x720-1f0c9a2b``: unique over matrices, safe in a path."""
        return f"{self.name}-{digest_of(self.identity())[:8]}"

    @property
    def num_images(self) -> int:
        """Pictures one run of this case draws."""
        return len(self.prompts) * self.num_images_per_prompt


@dataclass(frozen=True)
class Variant:
    """A way to compute a case: engine, degrees, axis, layout, cache and options."""

    engine: str
    ulysses: int = 1
    ring: int = 1
    axis: Axis = "auto"
    layout: Layout = "aligned"
    cache: Cache = "none"
    fault: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    required: bool = True
    environment: str = ""
    """Name of the environment that the engine runs in; empty for the one that is named for no other."""

    @property
    def degree(self) -> int:
        """Ranks of the sequence-parallel group: Ulysses degree times ring degree."""
        return self.ulysses * self.ring

    @property
    def label(self) -> str:
        """Short unique name inside a matrix, ``spatial-u2-auto``."""
        engine = f"{self.engine}@{self.environment}" if self.environment else self.engine
        parts = [engine, f"u{self.ulysses}"]
        parts += [f"r{self.ring}"] if self.ring > 1 else []
        parts += [self.axis] if self.axis != "none" else []
        parts += [self.layout] if self.layout != "aligned" else []
        parts += [self.cache] if self.cache != "none" else []
        parts += [self.fault] if self.fault else []
        parts += [f"{key}={value}" for key, value in sorted(self.options.items())]
        return "-".join(parts)


@dataclass(frozen=True)
class Matrix:
    """A matrix file, read and expanded: every case meets every variant."""

    name: str
    path: str
    golden_store: str
    """Folder or fsspec URL of the approved goldens."""
    cases: tuple[Case, ...]
    variants: tuple[Variant, ...]
    pairs: tuple[tuple[str, str], ...]
    """``(case name, variant label)`` in the order of the file; a variant may be limited to some cases."""
    metrics: tuple[str, ...] = ()
    """Metrics to measure; empty for all."""
    declared: tuple[tuple[Relation, Bound], ...] = ()
    """Bounds the file itself states, beside those of :mod:`harness.judging.judge`."""
    golden_digest: str | None = None
    """What the goldens of ``golden_keys`` must come to; ``None`` leaves a folder unpinned."""
    golden_keys: tuple[str, ...] = ()
    """``MODEL/CASE`` of every case that the file holds to a golden, whether or not it was selected."""
    interpreters: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Interpreters of its engines' environments on this machine, by address: ``sglang`` or ``sglang@0.5.9``."""


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint, found on disk: what planning must know of it without loading it."""

    name: str
    path: str
    weights: str
    num_heads: int
    pad_multiple: int = 32
    most_tokens: tuple[int, int] | None = None
    """Rows and columns of image tokens that it has rotary positions for; ``None`` for any number."""
