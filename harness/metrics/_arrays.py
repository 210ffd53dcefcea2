"""Shared parts of metrics: data ranges, decibels, and the way from an array back to pixels."""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections.abc import Callable
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


def kept(function: Callable[..., Array]) -> Callable[..., Array]:
    """Keep the last result of a function of two arrays that nobody can write to, for the next metric that asks.

    Metrics of one pair ask for the same differences one after the other. The arrays themselves are not held; what
    is returned cannot be written to either.
    """
    latest = threading.local()

    @functools.wraps(function)
    def asked(reference: Array, candidate: Array, *rest: Any) -> Array:
        # Identity tells arrays apart: a weak reference to one that is gone is no array, whatever lies there now.
        pair = reference, candidate
        if any(array.flags.writeable for array in pair):
            return function(*pair, *rest)
        known, known_rest, result = getattr(latest, "known", ((), (), None))
        if result is None or known_rest != rest or any(a() is not b for a, b in zip(known, pair, strict=True)):
            result = function(*pair, *rest)
            result.flags.writeable = False
            latest.known = tuple(map(weakref.ref, pair)), rest, result
        found: Array = result
        return found

    return asked


@kept
def absolute_difference(reference: Any, candidate: Any) -> Array:
    """Compute ``abs(candidate - reference)``, so that neither uint8 wraps nor float32 rounds.

    Returns
    -------
    array
        uint8 for two uint8 arrays, which is exact; else float64.
    """
    if reference.dtype == candidate.dtype == np.uint8:
        larger: Array = np.maximum(reference, candidate)
        larger -= np.minimum(reference, candidate)
        return larger
    return np.abs(_difference(reference, candidate))


@kept
def strip_sums(reference: Any, candidate: Any, domain: Domain) -> Array:
    """Add up squared differences from top to bottom over strips between :func:`strip_edges`.

    One token high, strips are what the worst tile, the seam and the PSNR of pictures need.

    Returns
    -------
    array
        ``strips,W*n``, the ``n`` values of a place side by side: exact integers and three channels for uint8
        pictures; else float64 and one, the mean over channels.
    """
    squares: Array
    if reference.dtype == candidate.dtype == np.uint8:
        squares = np.square(absolute_difference(reference, candidate), dtype=np.uint16)  # 255 squared just fits
        squares = over_plane(squares, domain)
        squares = squares.reshape(len(squares), -1)
    else:
        difference = over_plane(_difference(reference, candidate), domain)
        squares = np.einsum("hwc,hwc->hw", difference, difference)  # adds up as it squares: nothing is written between
        squares /= difference.shape[-1]
    strip = PIXELS_PER_TOKEN // pixels_per_cell(domain)
    if len(squares) % strip == 0:  # numpy adds up equal parts ten times faster
        return add_up(squares.reshape(-1, strip, squares.shape[1]), axis=1)
    return add_up(squares, axis=0, starts=strip_edges(len(squares), domain)[:-1])


def mean_square(reference: Any, candidate: Any, domain: Domain) -> float:
    """Compute the mean of squared differences over all places and channels."""
    if reference.dtype == candidate.dtype == np.uint8:
        sums = strip_sums(reference, candidate, domain)
        return float(add_up(sums, axis=0).sum() / (over_plane(reference, domain).shape[0] * sums.shape[1]))
    # Of a step nothing but this is asked for, and in the order of memory it is quicker than strips are.
    difference = _difference(reference, candidate).ravel("K")
    return float(np.einsum("i,i->", difference, difference) / difference.size)


@kept
def _difference(reference: Any, candidate: Any) -> Array:
    """Compute ``candidate - reference`` in float64; numpy is slower at widening while it subtracts."""
    difference: FloatArray = candidate.astype(np.float64)
    difference -= reference
    return difference


def strip_edges(length: int, domain: Domain) -> npt.NDArray[np.intp]:
    """Find the starts of strips along one side, and the end of the last one.

    At every token, and where tiles that end at the far border begin: all that is asked for lies between two edges.
    """
    token = PIXELS_PER_TOKEN // pixels_per_cell(domain)
    from_start, from_end = np.arange(0, length, token), np.arange(length % token, length + 1, token)
    return np.union1d(from_start, np.append(from_end, length))


def add_up(squares: Array, axis: int, starts: npt.NDArray[np.intp] | None = None) -> Array:
    """Add up squared errors along one axis, or from each start to the next, as ``numpy.add.reduceat`` does.

    Integers stay integers, in the narrowest type that holds the largest sum there could be of these: numpy adds up
    uint16 as it is in a third of the time of widening it to uint32, and that in half the time of uint64.
    """
    exact = np.issubdtype(squares.dtype, np.integer)
    largest = np.min_scalar_type(int(squares.max()) * squares.shape[axis]) if exact else squares.dtype
    dtype = np.promote_types(largest, squares.dtype)
    sums: Array
    if starts is None:
        sums = np.add.reduce(squares, axis=axis, dtype=dtype)
    else:
        sums = np.add.reduceat(squares, starts, axis=axis, dtype=dtype)
    return sums


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
