"""Absolute difference that all but one in a thousand elements stay below."""

from __future__ import annotations

import bisect
import functools
import math
from typing import Any, ClassVar

import numpy as np

from harness.metrics._arrays import Array, absolute_difference, finite
from harness.types import Domain, Figure

PERCENT = 99.9


class P999:
    """99.9th percentile of ``abs(candidate - reference)``, linear interpolation (``numpy.percentile``).

    The largest difference speaks of one element, the mean of all; this one speaks of the worst
    thousandth, which is where a seam lives.
    """

    name: ClassVar[str] = "p999"
    variant: ClassVar[str] = "99.9th percentile, linear interpolation"
    unit: ClassVar[str] = "of 255 (image), abs (latents)"
    higher_is_better: ClassVar[bool] = False
    domains: ClassVar[tuple[Domain, ...]] = ("image", "latents")

    def measure(self, reference: Any, candidate: Any, domain: Domain) -> Figure:
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

    largest = int(difference.max())
    low = bisect.bisect_right(range(largest), ranks[0], key=num_up_to)
    if low == largest or num_up_to(low) > ranks[1]:
        return low, low
    return low, bisect.bisect_right(range(largest), ranks[1], lo=low, key=num_up_to)


def _sorted(difference: Array, ranks: tuple[int, int]) -> tuple[float, float]:
    """Values at two neighbouring places of the sorted array; the second is NaN where any is."""
    ordered = np.partition(difference, ranks[0])  # numpy is several times slower at two places than at one
    return ordered[ranks[0]], ordered[ranks[1] :].min()
