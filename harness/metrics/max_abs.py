"""Largest absolute difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics._arrays import absolute_difference, finite, over_plane, token_box
from harness.plugins import Context, Metric
from harness.types import Domain, Figure


class MaxAbs(Metric):
    """``max(abs(candidate - reference))`` over all elements and channels, and the token that holds it."""

    name = "max-abs"
    variant = "maximum over elements"
    unit = "of 255 (image), abs (latents)"
    higher_is_better = False

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
        """Compare two arrays of equal shape: uint8 ``H,W,3`` or float32 ``C,H,W``.

        Returns
        -------
        Figure
            In grey levels ("of 255") or in the latents' own unit ("abs"), with the box of the 16x16 px
            token where the largest difference lies; both are ``None`` where a value is not finite.
        """
        plane = over_plane(absolute_difference(reference, candidate), domain)
        row, column, _ = np.unravel_index(int(np.argmax(plane)), plane.shape)
        value = finite(plane.max())
        unit = "of 255" if domain == "image" else "abs"
        box = token_box(int(row), int(column), domain) if value is not None else None
        return Figure(self.name, self.variant, domain, value, unit, box)
