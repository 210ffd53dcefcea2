"""The noise floor: how far two correct computations of the same mathematics lie apart.

Measured on the spot for every case: the baseline draws once more with its image tokens in reverse order.
Attention does not care for order and positions travel with their tokens, so nothing changes but the order
of sums; whatever differs is rounding, of this model, dtype, device and request.
"""

from __future__ import annotations

from harness.types import Bound, Comparison

MARGIN_DB = 10.0
"""Taken off the floor: a split reorders other sums than a reversal does, so that a healthy exchange may lie
some decibels below it. Every report shows both side by side, in the rows ``floor`` and ``exchange``."""

LEVELS_FACTOR = 3.2
"""The same margin for differences of 8-bit pictures: 10 dB are a factor of 3.2."""


def bounds(floor: Comparison | None) -> list[Bound]:
    """Bounds that a figure at the noise floor keeps: latents PSNR, and steps of the 8-bit picture.

    Parameters
    ----------
    floor
        The baseline against itself with its tokens reordered; without one nothing can be held to it.

    Returns
    -------
    list of Bound
        Where the reordering changes no bit, equality to the last bit is asked for.
    """
    if floor is None or floor.problem:
        return []
    latents, image = floor.figure("psnr", "latents"), floor.figure("max-abs", "image")
    if latents is None or latents.value is None:
        found = [Bound("max-abs", "latents", 0.0, "abs", "floor", 0.0, "at most")]
    else:
        found = [Bound("psnr", "latents", round(latents.value - MARGIN_DB, 2), "dB", "floor", MARGIN_DB)]
    # Rounding to 8 bits may carry any value at the floor over one step, whether or not it did here.
    levels = max(1.0, LEVELS_FACTOR * image.value) if image is not None and image.value is not None else 1.0
    return [*found, Bound("max-abs", "image", levels, "of 255", "floor", 0.0, "at most")]
