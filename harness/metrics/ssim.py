"""Structural similarity in the form of the paper that introduced it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from harness.metrics._arrays import IMAGE_RANGE, FloatArray, finite
from harness.plugins import Context, Metric
from harness.types import Domain, Figure

SIGMA = 1.5
RADIUS = 5
MARGIN = 2 * RADIUS
WINDOW = MARGIN + 1

BLOCK = 8
"""Windows in a row that one multiplication computes: BLAS is slow at fewer, more would multiply by more zeros."""

# A tile of the picture: more than this leaves the processor's cache, less is a matter of calling numpy. No product
# has more than 2**18 multiplications (the largest 256 x 18 x 8): beyond that OpenBLAS shares it out over threads,
# which cost more processor time than they save, and many times more time of any kind while ranks hold the cores.
TILE_ROWS = 256
TILE_COLUMNS = 128

Pixels = npt.NDArray[np.uint8]


class Ssim(Metric):
    """Mean structural similarity of Wang, Bovik, Sheikh and Simoncelli (IEEE TIP 13(4), 2004).

    Gaussian window with sigma 1.5 over 11 taps, population covariance, K1 = 0.01, K2 = 0.03, a margin
    of five pixels left out, mean over pixels and channels. The same number as scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=255, channel_axis=2)`` (held to 1e-9 by a test), in a fraction of its time. float32 would be
    quicker still and not equal: the variance of a flat area is a small difference of large numbers. It is no
    better for the differences alone, where all of an area differs by much.
    """

    name = "ssim"
    variant = "Wang 2004, gaussian 1.5"
    unit = "1"
    higher_is_better = True
    domains = ("image",)

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
        """Compare two pictures, uint8 ``H,W,3``.

        Returns
        -------
        Figure
            ``value`` in -1..1, 1 for equal pictures; ``None`` where a side is shorter than the window
            of 11 pixels.
        """
        fits = min(reference.shape[:2]) >= WINDOW
        value = finite(mean_ssim(reference, candidate)) if fits else None
        return Figure(self.name, self.variant, domain, value, self.unit)


def mean_ssim(reference: Any, candidate: Any) -> float:
    """Compute the mean SSIM of two ``H,W,C`` pictures, tile by tile."""
    height, width, num_channels = reference.shape
    rows, columns = height - MARGIN, width - MARGIN
    x, y = _planes(reference), _planes(candidate)
    total = 0.0
    for channel in range(num_channels):
        for top in range(0, rows, TILE_ROWS):
            for left in range(0, columns, TILE_COLUMNS):
                tile = np.s_[channel, top : top + TILE_ROWS + MARGIN, left : left + TILE_COLUMNS + MARGIN]
                index = _similarity(_windowed_moments(x[tile], y[tile]))
                index[:, rows - top :] = 0  # windows that reach into the padding
                index[(columns - left) // BLOCK :, :, columns % BLOCK :] = 0
                total += float(index.sum())
    return total / float(num_channels * rows * columns)


def _planes(picture: Pixels) -> Pixels:
    """Reorder to ``C,H,W``, with zeros below and to the right until windows come in whole blocks."""
    height, width, num_channels = picture.shape
    padding_rows, padding_columns = -(height - MARGIN) % BLOCK, -(width - MARGIN) % BLOCK
    planes = np.zeros((num_channels, height + padding_rows, width + padding_columns), dtype=np.uint8)
    planes[:, :height, :width] = np.moveaxis(picture, -1, 0)
    return planes


@cache
def _band() -> FloatArray:
    """Matrix ``8,18`` whose rows hold the gaussian window, each one column further on."""
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((BLOCK, BLOCK + MARGIN))
    for row in range(BLOCK):
        matrix[row, row : row + WINDOW] = taps
    return matrix


def _windowed_moments(x: Pixels, y: Pixels) -> FloatArray:
    """Windowed means of ``x + y``, ``x - y`` and the squares of both: ``4,blocks of columns,rows,8``.

    The window, being separable, is two multiplications with a banded matrix, only where a whole window fits
    (what scikit-image computes beyond that it crops again).
    """
    moments = np.empty((4, *x.shape))
    a, b = moments[2:]
    a[:], b[:] = x, y
    np.add(a, b, out=moments[0])
    np.subtract(a, b, out=moments[1])
    np.square(moments[:2], out=moments[2:])
    down = sliding_window_view(moments, BLOCK + MARGIN, axis=1)[:, ::BLOCK]
    lowered = np.matmul(_band(), down.swapaxes(2, 3)).reshape(4, -1, x.shape[1])
    across = sliding_window_view(lowered, BLOCK + MARGIN, axis=2)[:, :, ::BLOCK]
    windowed: FloatArray = np.matmul(across.swapaxes(1, 2), _band().T)
    return windowed


def _similarity(windowed: FloatArray) -> FloatArray:
    """Similarity index of each window: formula 13 of the paper; overwrites its argument.

    Of two numbers ``4*x*y == s - d`` and ``2*(x*x + y*y) == s + d``, where ``s`` and ``d`` are the squares of their
    sum and difference; so with covariance and variances. Both factors thus are ``(s - d) / (s + d)``.
    """
    means, squares = windowed[:2], windowed[2:]
    means *= means
    squares -= means  # the variances of sum and difference
    means[0] += 2 * (0.01 * IMAGE_RANGE) ** 2
    squares[0] += 2 * (0.03 * IMAGE_RANGE) ** 2
    index: FloatArray = means[0] - means[1]
    index *= squares[0] - squares[1]
    means[0] += means[1]
    squares[0] += squares[1]
    means[0] *= squares[0]
    index /= means[0]
    return index
