"""Structural similarity in the form of the paper that introduced it."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.metrics._arrays import IMAGE_RANGE, FloatArray, finite
from harness.types import Domain, Figure

SIGMA = 1.5
RADIUS = 5
WINDOW = 2 * RADIUS + 1

# No product below takes more than 2**18 multiplications: beyond that OpenBLAS shares it out over threads, which
# cost more processor time than they save, and many times more time of any kind while ranks hold the cores.
STRIP_ROWS = 8
STRIP_COLUMNS = 1024
BLOCK_COLUMNS = 32


class Ssim:
    """Mean structural similarity of Wang, Bovik, Sheikh and Simoncelli (IEEE TIP 13(4), 2004).

    Gaussian window with sigma 1.5 over 11 taps, population covariance, K1 = 0.01, K2 = 0.03, a margin
    of five pixels left out, mean over pixels and channels. The same number as scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=255, channel_axis=2)`` (held to 1e-9 by a test), in a fraction of its time. float32 would be
    quicker still and not equal: the variance of a flat area is a small difference of large numbers.
    """

    name: ClassVar[str] = "ssim"
    variant: ClassVar[str] = "Wang 2004, gaussian 1.5"
    unit: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    domains: ClassVar[tuple[Domain, ...]] = ("image",)

    def measure(self, reference: Any, candidate: Any, domain: Domain) -> Figure:
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
    """Compute the mean SSIM of two ``H,W,C`` pictures, strip by strip.

    Two things make it fast: everything about a strip of 8 rows stays in the processor's cache, and
    the window, being separable, is applied as two multiplications with a banded matrix, only where a
    whole window fits (what scikit-image computes beyond that it crops again).
    """
    x, y = (np.ascontiguousarray(np.moveaxis(picture, -1, 0)) for picture in (reference, candidate))
    channels, height, width = x.shape
    rows, columns = height - 2 * RADIUS, width - 2 * RADIUS
    across = np.ascontiguousarray(_window_matrix(min(BLOCK_COLUMNS, columns)).T)
    total = 0.0
    for top in range(0, rows, STRIP_ROWS):
        strip = slice(top, min(top + STRIP_ROWS, rows) + 2 * RADIUS)
        down = _window_matrix(strip.stop - strip.start - 2 * RADIUS)
        total += _similarity(*_windowed_moments(x[:, strip], y[:, strip], down, across))
    return total / float(channels * rows * columns)


@cache
def _window_matrix(length: int) -> FloatArray:
    """Matrix ``length, length + 10`` whose rows hold the gaussian window, each one column further on."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    taps = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    matrix = np.zeros((length, length + 2 * RADIUS))
    for row in range(length):
        matrix[row, row : row + WINDOW] = taps / taps.sum()
    return matrix


def _windowed_moments(
    x: npt.NDArray[np.uint8], y: npt.NDArray[np.uint8], down: FloatArray, across: FloatArray
) -> tuple[FloatArray, ...]:
    """Windowed means of ``x``, ``y``, ``x*x + y*y`` and ``x*y``; the two variances only occur as a sum."""
    moments = np.empty((4, *x.shape))
    a, b, squares, product = moments
    a[:], b[:] = x, y
    np.square(a, out=squares)
    squares += np.square(b, out=product)
    np.multiply(a, b, out=product)
    lowered = np.empty((4, len(x), len(down), x.shape[-1]))
    for left in range(0, x.shape[-1], STRIP_COLUMNS):
        part = slice(left, left + STRIP_COLUMNS)
        np.matmul(down, moments[..., part], out=lowered[..., part])
    narrow = lowered.reshape(-1, x.shape[-1])
    columns = x.shape[-1] - 2 * RADIUS
    windowed = np.empty((len(narrow), columns))
    for left in range(0, columns, BLOCK_COLUMNS):
        count = min(BLOCK_COLUMNS, columns - left)
        source = narrow[:, left : left + count + 2 * RADIUS]
        np.matmul(source, across[: count + 2 * RADIUS, :count], out=windowed[:, left : left + count])
    return tuple(windowed.reshape(4, -1))


def _similarity(mean_x: FloatArray, mean_y: FloatArray, squares: FloatArray, product: FloatArray) -> float:
    """Sum of the similarity index over pixels: formula 13 of the paper; overwrites its arguments."""
    c1, c2 = (0.01 * IMAGE_RANGE) ** 2, (0.03 * IMAGE_RANGE) ** 2
    means_product = mean_x * mean_y
    product -= means_product  # the covariance
    mean_x *= mean_x
    mean_y *= mean_y
    mean_x += mean_y
    squares -= mean_x  # the variances
    means_product *= 2
    means_product += c1
    product *= 2
    product += c2
    mean_x += c1
    squares += c2
    index = np.multiply(means_product, product, out=product)
    index /= np.multiply(mean_x, squares, out=squares)
    return float(index.sum())
