"""Absolute difference that all but one in a thousand elements stay below."""

from __future__ import annotations

import bisect
import functools
import math
from typing import Any

import numpy as np

from harness.metrics._arrays import Array, absolute_difference, finite
from harness.plugins import Context, Metric
from harness.types import Domain, Figure

PERCENT = 99.9
SAMPLED_EVERY = 61
"""Prime: in step with rows only where their length is a multiple of it, which costs time alone."""
SAMPLED_PERCENT = 98.0
"""Of a sample: below :data:`PERCENT`, so that what is wanted lies above it unless the sample misleads."""


class P999(Metric):
    """99.9th percentile of ``abs(candidate - reference)``, linear interpolation (``numpy.percentile``).

    The largest difference speaks of one element, the mean of all; this one speaks of the worst
    thousandth, which is where a seam lives.
    """

    name = "p999"
    variant = "99.9th percentile, linear interpolation"
    unit = "of 255 (image), abs (latents)"
    higher_is_better = False

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
        """Compare two arrays of equal shape: uint8 ``H,W,3`` or float32 ``C,H,W``.

        Returns
        -------
        Figure
            In grey levels ("of 255") or in the latents' own unit ("abs"); ``value`` is ``None`` where a
            value is not finite.
        """
        difference = absolute_difference(reference, candidate).ravel()
        place = PERCENT / 100 * (difference.size - 1)
        ranks = math.floor(place), math.ceil(place)
        with np.errstate(invalid="ignore"):
            low, high = _levels(difference, ranks) if difference.dtype == np.uint8 else _sorted(difference, ranks)
            value = finite(low + (high - low) * (place - math.floor(place)))
        return Figure(self.name, self.variant, domain, value, "of 255" if domain == "image" else "abs")


def _levels(difference: Array, ranks: tuple[int, int]) -> tuple[float, float]:
    """Values at two neighbouring places of the sorted uint8 array: found by counting, which is quicker than sorting."""

    @functools.cache
    def num_up_to(level: int) -> int:
        return int(np.count_nonzero(difference <= level))

    def level_at(rank: int, first: int, last: int) -> int:
        return bisect.bisect_right(range(256), rank, first, last, key=num_up_to)

    sample = np.bincount(difference[::SAMPLED_EVERY]).cumsum()
    guess = int(np.searchsorted(sample, PERCENT / 100 * sample[-1]))
    low = level_at(ranks[0], max(0, guess - 1), guess + 1)
    if low != guess:  # the sample is wrong, and how far is not known
        low = level_at(ranks[0], guess + 1, 255) if low > guess else level_at(ranks[0], 0, low)
    return low, low if num_up_to(low) > ranks[1] else level_at(ranks[1], low + 1, 255)


def _sorted(difference: Array, ranks: tuple[int, int]) -> tuple[float, float]:
    """Values at two neighbouring places of the sorted array; the second is NaN where any is."""
    # Comparing is several times quicker than partitioning, for which then only the largest are left.
    sample = difference[::SAMPLED_EVERY]
    place = int(SAMPLED_PERCENT / 100 * (sample.size - 1))
    largest = difference[~(difference <= np.partition(sample, place)[place])]  # NaN among them
    if difference.size - largest.size > ranks[0]:  # many equal values, or a sample that met the largest
        largest = difference
    first, second = (rank - (difference.size - largest.size) for rank in ranks)
    ordered = np.partition(largest, first)  # numpy is several times slower at two places than at one
    return ordered[first], ordered[second:].min()
