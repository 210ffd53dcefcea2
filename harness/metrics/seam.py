"""Error along the borders of the shards against error elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics._arrays import (
    Box,
    FloatArray,
    finite,
    over_plane,
    pixels_per_cell,
    strip_edges,
    strip_sums,
)
from harness.plugins import Context, Metric
from harness.types import PIXELS_PER_TOKEN, Domain, Figure, ShardPlan

REACH_PX = PIXELS_PER_TOKEN
"""How far a seam reaches on both sides of a border: one token."""


class Seam(Metric):
    """``10 * log10(MSE near the borders / MSE elsewhere)`` in decibels; 0 where the error is spread evenly.

    Near is what lies within 16 pixels of a border, on either side. Pads change a picture everywhere alike;
    shards that do not know of each other part company at their border. The box is that of the border
    with the most error.
    """

    name = "seam"
    variant = "MSE within 16 px of shard borders over MSE elsewhere"
    unit = "dB"
    higher_is_better = False

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure | None:
        """Compare two arrays of equal shape: uint8 ``H,W,3`` or float32 ``C,H,W``.

        Returns
        -------
        Figure or None
            With the worst border's box in pixels of the picture; ``None`` where nothing is cut. Its ``value`` is
            ``None`` where there is nothing beside the borders, no error on one of the two sides, or a value that
            is not finite.
        """
        plan, scale = context.plan, pixels_per_cell(domain)
        if plan is None or len(plan.origins) == 1:
            return None
        height, width = over_plane(reference, domain).shape[:2]
        reach = REACH_PX // scale
        starts = [origin * PIXELS_PER_TOKEN // scale for origin in plan.origins[1:]]
        near = np.zeros(height if plan.axis == "h" else width, dtype=bool)
        for start in starts:
            near[max(0, start - reach) : start + reach] = True
        if near.all():
            return Figure(self.name, self.variant, domain, None, self.unit)
        sums = strip_sums(reference, candidate, domain)
        if plan.axis == "h":
            heights = np.diff(strip_edges(height, domain))  # a strip lies on one side of where a seam ends
            lines = np.repeat(sums.sum(axis=1) / (heights * sums.shape[1]), heights)
        else:
            lines = sums.sum(axis=0).reshape(width, -1).mean(axis=1) / height
        with np.errstate(divide="ignore", invalid="ignore"):
            value = finite(10 * np.log10(lines[near].mean() / lines[~near].mean()))
        box = _worst_border(lines, starts, reach, plan, (height, width), scale) if value is not None else None
        return Figure(self.name, self.variant, domain, value, self.unit, box)


def _worst_border(
    lines: FloatArray, starts: list[int], reach: int, plan: ShardPlan, shape: tuple[int, ...], scale: int
) -> Box:
    worst = max(starts, key=lambda start: float(lines[max(0, start - reach) : start + reach].mean()))
    first, last = max(0, worst - reach) * scale, min(len(lines), worst + reach) * scale
    height, width = shape[0] * scale, shape[1] * scale
    return (0, first, width, last) if plan.axis == "h" else (first, 0, last, height)
