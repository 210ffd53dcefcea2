"""The gates that other projects hold their pictures to, asked about our very same pictures and latents.

Each is one figure, or a few, between the picture of one device and the split one, with fixed limits. Limits
and windows are those of the projects; where a gate speaks of values in [0, 1], ours are divided by 255.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness.judging.measure import find_problem
from harness.runs.sample import Sample

Array = np.ndarray[Any, Any]
Word = Literal["passes", "fails", "n/a"]
"""What a gate says; ``n/a`` where its figure does not exist for this size."""

MS_SSIM_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SIDE_PX = 161
"""Shortest side with five scales of an 11 px window."""


@dataclass(frozen=True)
class Limit:
    """One figure's limit."""

    figure: str
    value: float
    direction: Literal["at least", "at most"]

    def holds(self, value: float) -> bool:
        """Whether a figure keeps the limit."""
        return value >= self.value if self.direction == "at least" else value <= self.value


@dataclass(frozen=True)
class Gate:
    """The limits a project holds a picture to, all at once."""

    name: str
    limits: tuple[Limit, ...]

    @property
    def rule(self) -> str:
        """The limits in words."""
        return ", ".join(f"{limit.figure} {limit.direction} {limit.value:g}" for limit in self.limits)

    def word(self, figures: Mapping[str, float | None]) -> Word:
        """Judge the figures that :func:`measure` returned."""
        if any(figures[limit.figure] is None for limit in self.limits):
            return "n/a"
        return "passes" if all(limit.holds(figures[limit.figure] or 0.0) for limit in self.limits) else "fails"


GATES = (
    Gate(
        "SGLang, Z-Image",
        (Limit("PSNR", 30.0, "at least"), Limit("SSIM", 0.95, "at least"), Limit("MAD", 4.0, "at most")),
    ),
    Gate(
        "SGLang, default",
        (Limit("SSIM", 0.95, "at least"), Limit("PSNR", 28.0, "at least"), Limit("MAD", 8.0, "at most")),
    ),
    Gate("FastVideo, .70", (Limit("MS-SSIM", 0.70, "at least"),)),
    Gate("FastVideo, .98", (Limit("MS-SSIM", 0.98, "at least"),)),
    Gate("vllm-omni", (Limit("mean", 3e-2, "at most"), Limit("p99", 0.25, "at most"))),
    Gate("diffusers", (Limit("latents", 1e-4, "at most"),)),
)
"""FastVideo's floor differs by model; its lowest and its highest are asked."""

LEFT_OUT = {"SGLang, CLIP at least .92": "it needs a model that this repository cannot load"}


@dataclass(frozen=True)
class Said:
    """Answers of all gates for one picture, and their figures; empty where there is nothing to measure."""

    words: Mapping[str, Word]
    figures: Mapping[str, float | None]


def ask(reference: Sample | None, candidate: Sample | None) -> Said:
    """Ask every gate about a picture; one that is missing or has another size fails all of them."""
    if reference is None or candidate is None or find_problem(reference, candidate):
        return Said({gate.name: "fails" for gate in GATES}, {})
    figures = measure(reference, candidate)
    return Said({gate.name: gate.word(figures) for gate in GATES}, figures)


def measure(reference: Sample, candidate: Sample) -> dict[str, float | None]:
    """Measure every figure the gates speak of; of several pictures the worst.

    Parameters
    ----------
    reference, candidate
        Samples of equal shapes, with pictures.

    Returns
    -------
    dict
        ``PSNR`` in dB (infinite where equal), ``SSIM`` (skimage's default window), ``MAD`` the mean absolute
        difference of 255, ``MS-SSIM`` (``None`` below 161 px), ``mean`` and ``p99`` of the absolute difference
        in [0, 1], ``latents`` the largest absolute difference.
    """
    pairs = list(zip(reference.images or (), candidate.images or (), strict=True))
    differences = [np.abs(a.astype(np.float64) - b) for a, b in pairs]
    return {
        "PSNR": min(psnr_db(a, b) for a, b in pairs),
        "SSIM": min(ssim(a, b) for a, b in pairs),
        "MAD": max(float(difference.mean()) for difference in differences),
        "MS-SSIM": _least([ms_ssim(a, b) for a, b in pairs]),
        "mean": max(float(difference.mean()) / 255 for difference in differences),
        "p99": max(float(np.percentile(difference, 99)) / 255 for difference in differences),
        "latents": _largest(reference.latents, candidate.latents),
    }


def psnr_db(reference: Array, candidate: Array) -> float:
    """Peak signal-to-noise ratio of ``H,W,3`` uint8, peak 255; infinite where equal."""
    error = float(np.mean((reference.astype(np.float64) - candidate) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(reference: Array, candidate: Array) -> float:
    """SSIM of ``H,W,3`` uint8 with skimage's defaults: uniform window of 7 px, sample covariance."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(reference, candidate, channel_axis=2, data_range=255))


def ms_ssim(reference: Array, candidate: Array) -> float | None:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik 2003) of ``H,W,3`` uint8; ``None`` below 161 px.

    Gaussian window of 11 px and sigma 1.5 inside the picture only, five scales halved by averaging 2x2
    pixels, negative terms taken for 0, the mean over channels.
    """
    if min(reference.shape[:2]) < MS_SSIM_SIDE_PX:
        return None
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    product: Array = np.ones(reference.shape[2])
    for scale, weight in enumerate(MS_SSIM_SCALES, 1):
        contrast, whole = _ssim_terms(left, right)
        term = whole if scale == len(MS_SSIM_SCALES) else contrast
        product = product * np.maximum(term, 0.0) ** weight
        left, right = _halved(left), _halved(right)
    return float(product.mean())


def _ssim_terms(left: Array, right: Array) -> tuple[Array, Array]:
    """Contrast-structure term and whole SSIM of each channel."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_left, mean_right = _blurred(left), _blurred(right)
    variance_left = _blurred(left * left) - mean_left**2
    variance_right = _blurred(right * right) - mean_right**2
    covariance = _blurred(left * right) - mean_left * mean_right
    contrast = (2 * covariance + c2) / (variance_left + variance_right + c2)
    luminance = (2 * mean_left * mean_right + c1) / (mean_left**2 + mean_right**2 + c1)
    return contrast.mean(axis=(0, 1)), (luminance * contrast).mean(axis=(0, 1))


def _blurred(picture: Array) -> Array:
    """Weighted mean over the window at every place where it lies inside, ``H-10,W-10,C``."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    height, width = picture.shape[0] - 10, picture.shape[1] - 10
    rows = sum(weight * picture[place : place + height] for place, weight in enumerate(window))
    blurred: Array = sum(weight * rows[:, place : place + width] for place, weight in enumerate(window))
    return blurred


def _halved(picture: Array) -> Array:
    """Mean of 2x2 pixels; the last line of an odd side counts twice, so that 161 px keep five scales."""
    even = np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
    halved: Array = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    return halved


def _largest(reference: Array | None, candidate: Array | None) -> float | None:
    if reference is None or candidate is None:
        return None
    return float(np.abs(reference.astype(np.float64) - candidate).max())


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None
