"""Plain values that every other type here is made of: versions, units, words of a closed list, digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

SCHEMA = 1
"""Version of every file the harness writes or reads: matrices, run.json, report.json, goldens."""

PIXELS_PER_TOKEN = 16
"""One image token is a 2x2 patch of 8x downsampled latents."""

MOST_RANKS = 1024
"""Of one picture: more than any side of a picture has tokens to share."""

PROBE_FILE = "probe-rank-{rank}.safetensors"
"""What a probed run leaves of each rank, beside its ``run.json``."""

Axis = Literal["auto", "h", "w", "none"]
Layout = Literal["aligned", "exact"]
Cache = Literal["none", "cache-dit"]
Device = Literal["cpu", "cuda"]
DType = Literal["float32", "bfloat16", "float16"]
GoldenPolicy = Literal["required", "off"]
Domain = Literal["image", "latents"]
TokenOrder = Literal[
    "native", "reversed", "columns", "shuffled-1", "shuffled-2", "shuffled-3", "shuffled-4", "shuffled-5", "shuffled-6"
]
"""Order of the image tokens on one device: row by row with pads behind; all of them turned round; the picture's columns
one after the other, as an axis ``w`` has them; or a permutation of all by a seed."""


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_plain_name(name: str) -> bool:
    """Whether a name, joined to a folder, names something directly inside of it."""
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0")


def check_plain_name(name: str, what: str) -> None:
    """Check that a name, joined to a folder, names something directly inside of it.

    Raises
    ------
    ValueError
        If it leads elsewhere.
    """
    if not is_plain_name(name):
        raise ValueError(f"{what} {name!r} leads elsewhere; a name without a folder is expected")
