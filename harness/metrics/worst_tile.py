"""PSNR of the tile that differs most, and where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics._arrays import (
    Array,
    Box,
    data_range,
    finite,
    over_plane,
    pixels_per_cell,
    range_name,
    strip_edges,
    strip_sums,
)
from harness.plugins import Context, Metric
from harness.types import Domain, Figure

TILE_PX = 32


class WorstTile(Metric):
    """``10 * log10(range**2 / MSE)`` of the worst of all tiles of 32x32 pixels (two by two tokens).

    A seam or a lost row of tokens is a small part of a picture: the mean over all pixels hides it,
    the worst tile does not, and its box says where to look. Tiles do not overlap, except that the
    last row and column are moved inwards to end at the border. Latents are tiled by the same 32
    pixels, 4x4 cells over all channels. An equal tile would score infinity and is never the worst.
    """

    name = "worst-tile"
    variant = "PSNR of the worst 32x32 px tile"
    unit = "dB"
    higher_is_better = True

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
        """Compare two arrays of equal shape: uint8 ``H,W,3`` or float32 ``C,H,W``.

        Returns
        -------
        Figure
            With the tile's box in pixels of the picture; ``value`` and box are ``None`` for equal arrays
            and where a value is not finite.
        """
        side = TILE_PX // pixels_per_cell(domain)
        sums = strip_sums(reference, candidate, domain)
        height, width = over_plane(reference, domain).shape[:2]
        tops, lefts = _starts(height, side), _starts(width, side)
        rows, columns = (np.minimum(side, length - starts) for length, starts in ((height, tops), (width, lefts)))
        edges, num_values = strip_edges(height, domain), sums.shape[1] // width
        # First along rows, which lie in one piece: what is left for the other way is little.
        sums = _between(sums, lefts * num_values, (lefts + columns) * num_values, axis=1)
        sums = _between(sums, np.searchsorted(edges, tops), np.searchsorted(edges, tops + rows), axis=0)
        errors = sums / np.outer(rows, columns * num_values)
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


def _between(values: Array, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], axis: int) -> Array:
    """Sums from each start to its end."""
    # reduceat sums from each index to the next and the last to the end, so starts and ends in
    # turn, of which every other sum is a tile's; unlike a running sum it does not cancel.
    edges = np.stack((starts, ends), axis=1).ravel()[:-1]
    sums = np.add.reduceat(values, edges, axis=axis)
    return sums[::2] if axis == 0 else sums[:, ::2]


def _box(top: int, left: int, shape: tuple[int, ...], side: int, scale: int) -> Box:
    bottom, right = min(top + side, shape[0]), min(left + side, shape[1])
    return int(left) * scale, int(top) * scale, int(right) * scale, int(bottom) * scale
