"""Absolute difference that all but one in a thousand elements stay below."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics._arrays import absolute_difference, finite
from harness.plugins import Context, Metric
from harness.types import Domain, Figure

PERCENT = 99.9


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
        with np.errstate(invalid="ignore"):
            value = finite(np.percentile(absolute_difference(reference, candidate), PERCENT))
        return Figure(self.name, self.variant, domain, value, "of 255" if domain == "image" else "abs")
