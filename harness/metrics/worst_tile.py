"""PSNR of the tile that differs most, and where it lies."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.metrics._arrays import (
    Array,
    Box,
    FloatArray,
    add_up,
    data_range,
    finite,
    over_plane,
    pixels_per_cell,
    range_name,
    squared_error,
)
from harness.types import Domain, Figure

TILE_PX = 32


class WorstTile:
    """``10 * log10(range**2 / MSE)`` of the worst of all tiles of 32x32 pixels (two by two tokens).

    A seam or a lost row of tokens is a small part of a picture: the mean over all pixels hides it,
    the worst tile does not, and its box says where to look. Tiles do not overlap, except that the
    last row and column are moved inwards to end at the border. Latents are tiled by the same 32
    pixels, 4x4 cells over all channels. An equal tile would score infinity and is never the worst.
    """

    name: ClassVar[str] = "worst-tile"
    variant: ClassVar[str] = "PSNR of the worst 32x32 px tile"
    unit: ClassVar[str] = "dB"
    higher_is_better: ClassVar[bool] = True
    domains: ClassVar[tuple[Domain, ...]] = ("image", "latents")

    def measure(self, reference: Any, candidate: Any, domain: Domain) -> Figure:
        """Compare two arrays of equal shape: uint8 ``H,W,3`` or float32 ``C,H,W``.

        Returns
        -------
        Figure
            With the tile's box in pixels of the picture; ``value`` and box are ``None`` for equal arrays
            and where a value is not finite.
        """
        side = TILE_PX // pixels_per_cell(domain)
        squares = squared_error(reference, candidate, domain)
        height, width = over_plane(reference, domain).shape[:2]
        tops, lefts = _starts(height, side), _starts(width, side)
        errors = _tile_errors(squares, tops, lefts, side, squares.shape[1] // width)
        row, column = np.unravel_index(int(np.argmax(errors)), errors.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            peak = np.float64(data_range(reference, domain))
            value = finite(10 * np.log10(peak**2 / errors[row, column]))
        box = _box(tops[row], lefts[column], (height, width), side, pixels_per_cell(domain))
        variant = f"{self.variant}, {range_name(domain)}"
        return Figure(self.name, variant, domain, value, self.unit, box if value is not None else None)


def _starts(length: int, side: int) -> npt.NDArray[np.intp]:
    """First element of each tile along one side."""
    starts = np.arange(0, length, side)
    starts[-1] = max(0, length - side)
    return starts


def _tile_errors(
    squares: Array, tops: npt.NDArray[np.intp], lefts: npt.NDArray[np.intp], side: int, num_values: int
) -> FloatArray:
    """Mean squared error of every tile, of squares with ``num_values`` to a place."""
    # First along rows, which lie in one piece: what is left for the other way is 1/16 as much.
    sums = _between(squares, lefts * num_values, side * num_values, axis=1)
    sums = _between(sums, tops, side, axis=0)
    errors: FloatArray = sums / (min(side, len(squares)) * min(side * num_values, squares.shape[1]))
    return errors


def _between(values: Array, starts: npt.NDArray[np.intp], length: int, axis: int) -> Array:
    """Sums of ``length`` values from each start on."""
    # reduceat sums from each index to the next and the last to the end, so starts and ends in
    # turn, of which every other sum is a tile's; unlike a running sum it does not cancel.
    edges = np.stack((starts, starts + length), axis=1).ravel()[:-1]
    sums = add_up(values, axis, edges)
    return sums[::2] if axis == 0 else sums[:, ::2]


def _box(top: int, left: int, shape: tuple[int, ...], side: int, scale: int) -> Box:
    bottom, right = min(top + side, shape[0]), min(left + side, shape[1])
    return int(left) * scale, int(top) * scale, int(right) * scale, int(bottom) * scale
