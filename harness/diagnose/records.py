"""Records of a probed run's ranks as arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from harness.types import PROBE_FILE

Array = np.ndarray[Any, Any]
Call = tuple[int, str]
"""Denoise step, from 1, and the block's name."""


@dataclass(frozen=True)
class Probe:
    """One rank's records, each by step and block.

    ``keys`` and ``values`` are ``B,heads,S,head_dim``, ``masks`` are ``B,S`` (true: met by some query), and
    ``rows`` are the sketched outputs of blocks, ``B,S,sketch`` or ``B*S,sketch``.
    """

    keys: Mapping[Call, Array]
    values: Mapping[Call, Array]
    masks: Mapping[Call, Array]
    rows: Mapping[Call, Array]
    times: Mapping[int, Array] = field(default_factory=dict)
    """Sketch of the first picture's time embedding, by step."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Checksum of the weights that a block used at the first step, by block."""
    left_out: tuple[str, ...] = ()


def read(folder: Path, num_ranks: int) -> tuple[Probe, ...]:
    """Read the records of all ranks of one run."""
    return tuple(_read_one(folder / PROBE_FILE.format(rank=rank)) for rank in range(num_ranks))


def _read_one(path: Path) -> Probe:
    found: dict[str, dict[Call, Array]] = {what: {} for what in ("key", "value", "mask", "rows", "time", "weight")}
    with safe_open(path, "np") as file:
        left_out = tuple(json.loads((file.metadata() or {}).get("left_out", "[]")))
        for name in file.keys():  # noqa: SIM118 - this is no dictionary
            what, step, module = name.split("/", 2)
            found[what][int(step), module] = file.get_tensor(name)
    times = {step: tensor for (step, _), tensor in found["time"].items()}
    weights = {module: float(tensor[0]) for (_, module), tensor in found["weight"].items()}
    return Probe(found["key"], found["value"], found["mask"], found["rows"], times, weights, left_out)
