"""Absolute difference that all but one in a thousand elements stay below."""

from __future__ import annotations

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
        difference = absolute_difference(reference, candidate)
        with np.errstate(invalid="ignore"):
            if difference.dtype == np.uint8:
                value = finite(_of_levels(difference))
            else:
                value = finite(np.percentile(difference, PERCENT, overwrite_input=True))
        return Figure(self.name, self.variant, domain, value, "of 255" if domain == "image" else "abs")


def _of_levels(difference: Array) -> float:
    """The same percentile of uint8, from the count of each of its 256 values: nothing is sorted."""
    below = np.cumsum(np.bincount(difference.ravel(), minlength=256))
    place = PERCENT / 100 * (difference.size - 1)
    low, high = np.searchsorted(below, (math.floor(place), math.ceil(place)), side="right")
    return float(low + (high - low) * (place - math.floor(place)))
