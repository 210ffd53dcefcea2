"""Peak signal-to-noise ratio over the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics._arrays import data_range, finite, mean_square, range_name
from harness.plugins import Context, Metric
from harness.types import Domain, Figure


class Psnr(Metric):
    """``10 * log10(range**2 / MSE)`` in decibels, the number ``skimage.metrics.peak_signal_noise_ratio`` gives.

    The range is 255 for pictures; latents have no fixed range, so theirs is the span (largest minus
    smallest value) of the reference.
    """

    name = "psnr"
    variant = "skimage, data_range=255 or span of the reference"
    unit = "dB"
    higher_is_better = True

    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
        """Compare two arrays of equal shape.

        Parameters
        ----------
        reference, candidate : array
            ``image``: uint8 ``H,W,3``. ``latents``: float32 ``C,H,W``.
        domain : {"image", "latents"}
            What the arrays are.
        context : Context
            Not used.

        Returns
        -------
        Figure
            ``value`` is ``None`` for equal arrays (the ratio is infinite) and where a value is not finite.
        """
        # In float64, where scikit-image squares float32 in float32: a difference of 1e-7 would then carry
        # only half of its digits into a figure above 140 dB.
        with np.errstate(divide="ignore", invalid="ignore"):
            error = mean_square(reference, candidate)
            value = 10 * np.log10(np.float64(data_range(reference, domain)) ** 2 / error)
        return Figure(self.name, f"skimage, {range_name(domain)}", domain, finite(value), self.unit)
