"""Shared parts of metrics: data ranges, decibels, and the way from an array back to pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.types import PIXELS_PER_TOKEN, Domain

IMAGE_RANGE = 255.0
PIXELS_PER_LATENT = 8

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]


def data_range(reference: Any, domain: Domain) -> float:
    """Return the span of values: 255 for pictures, largest minus smallest of the reference for latents."""
    return IMAGE_RANGE if domain == "image" else float(np.max(reference)) - float(np.min(reference))


def range_name(domain: Domain) -> str:
    """Name the data range for a figure's variant."""
    return "data_range=255" if domain == "image" else "data_range=span of the reference"


def finite(value: Any) -> float | None:
    """Return the value as a plain float, or ``None`` where it is infinite or not a number."""
    number = float(value)
    return number if math.isfinite(number) else None


def absolute_difference(reference: Any, candidate: Any) -> Array:
    """Compute ``abs(candidate - reference)``, so that neither uint8 wraps nor float32 rounds.

    Returns
    -------
    array
        uint8 for two uint8 arrays, which is exact; else float64.
    """
    if reference.dtype == candidate.dtype == np.uint8:
        levels: Array = np.maximum(reference, candidate) - np.minimum(reference, candidate)
        return levels
    values: Array = np.abs(np.subtract(candidate, reference, dtype=np.float64))
    return values


def strip_sums(reference: Any, candidate: Any, domain: Domain) -> FloatArray:
    """Add up squared differences from top to bottom over strips between :func:`strip_edges`.

    One token high, strips are what the worst tile and the seam need.

    Returns
    -------
    array
        ``strips,W*n``, the ``n`` values of a place side by side: three channels of pictures, whose sums are exact;
        else one, the mean over channels.
    """
    plane = over_plane(absolute_difference(reference, candidate), domain)
    if domain == "image":
        squares = _squares(plane).reshape(len(plane), -1)
    else:
        squares = np.einsum("hwc,hwc->hw", plane, plane) / plane.shape[-1]
    sums: FloatArray = np.add.reduceat(squares, strip_edges(len(squares), domain)[:-1], axis=0, dtype=np.float64)
    return sums


def mean_square(reference: Any, candidate: Any) -> float:
    """Compute the mean of squared differences over all elements."""
    flat = absolute_difference(reference, candidate).ravel("K")
    if flat.dtype == np.uint8:
        return float(_squares(flat).sum(dtype=np.uint64) / flat.size)
    return float(np.einsum("i,i->", flat, flat) / flat.size)


def _squares(differences: Array) -> Array:
    squares: Array = np.square(
        differences, dtype=np.uint16 if differences.dtype == np.uint8 else None
    )  # 255 squared fits
    return squares


def strip_edges(length: int, domain: Domain) -> npt.NDArray[np.intp]:
    """Find the starts of strips along one side, and the end of the last one.

    At every token, and where tiles that end at the far border begin: all that is asked for lies between two edges.
    """
    token = PIXELS_PER_TOKEN // pixels_per_cell(domain)
    from_start, from_end = np.arange(0, length, token), np.arange(length % token, length + 1, token)
    return np.union1d(from_start, np.append(from_end, length))


def over_plane(values: Array, domain: Domain) -> Array:
    """Reorder ``H,W,3`` or ``C,H,W`` to ``H,W,channels``."""
    return values if domain == "image" else np.moveaxis(values, 0, -1)


def pixels_per_cell(domain: Domain) -> int:
    """Count the pixels along one side that one element of the array stands for."""
    return 1 if domain == "image" else PIXELS_PER_LATENT


def token_box(row: int, column: int, domain: Domain) -> Box:
    """Find the box of the image token that holds one element, in pixels of the picture."""
    scale = pixels_per_cell(domain)
    top = row * scale // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN
    left = column * scale // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN
    return left, top, left + PIXELS_PER_TOKEN, top + PIXELS_PER_TOKEN
