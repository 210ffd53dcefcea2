"""Inputs of the blocks that are no tokens of the image: weights, time steps, and the captions of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.diagnose.records import Array, Probe
from harness.types import DType

TIME_TOLERANCE = {"float32": 1e-4, "bfloat16": 4e-3, "float16": 1e-3}
"""Relative distance of two time embeddings that rounding does not reach: equal times are embedded alike."""
WEIGHT_TOLERANCE = 1e-4
"""Relative difference of two checksums of the same weights, summed in another order."""
CAPTION_BLOCK = "context_refiner.0"
PAD_TOKENS = "pad tokens"
"""Name of the checksum of the learned pad tokens, which belong to no block."""


def times_off(reference: Probe, candidate: Sequence[Probe], dtype: DType) -> tuple[int, ...]:
    """List the steps at which a rank's time embedding is another than the reference's."""
    found = []
    for step, known in reference.times.items():
        scale = float(np.linalg.norm(known)) or 1.0
        others = [probe.times[step] for probe in candidate if step in probe.times]
        if any(other.shape == known.shape and _gap(other, known) > TIME_TOLERANCE[dtype] * scale for other in others):
            found.append(step)
    return tuple(sorted(found))


def _gap(first: Array, second: Array) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second))


def weights_off(reference: Probe, candidate: Sequence[Probe]) -> tuple[str, ...]:
    """List the modules whose weights differ between ranks, or of pad tokens from the reference's.

    An engine may keep a block's weights in another form than its reference does; its ranks may not differ.
    """
    found = []
    for rank, probe in enumerate(candidate):
        for module, checksum in probe.weights.items():
            known = reference.weights.get(module) if module == PAD_TOKENS else candidate[0].weights.get(module)
            if known is not None and abs(checksum - known) > WEIGHT_TOLERANCE * max(abs(checksum), abs(known), 1.0):
                found.append(f"rank {rank}: {module}")
    return tuple(found)


def batch(probe: Probe) -> int:
    """Count the pictures of one forward call; 0 where no attention was recorded."""
    return max((len(keys) for keys in probe.keys.values()), default=0)


def caption_keys(probe: Probe) -> int:
    """Count the keys of the first attention over the caption, its pads included; 0 where it was not recorded."""
    return max((keys.shape[2] for (_, module), keys in probe.keys.items() if module == CAPTION_BLOCK), default=0)
