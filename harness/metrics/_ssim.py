"""Structural similarity: the parts that CPU and GPU share."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.metrics._arrays import IMAGE_RANGE, FloatArray

SIGMA = 1.5
RADIUS = 5
MARGIN = 2 * RADIUS
WINDOW = MARGIN + 1


def taps() -> FloatArray:
    """The gaussian window along one side: 11 weights that add up to 1."""
    weights: FloatArray = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    return weights


def similarity(windowed: Any) -> Any:
    """Similarity index of each window: formula 13 of the paper; overwrites its argument.

    Of two numbers ``4*x*y == s - d`` and ``2*(x*x + y*y) == s + d``, where ``s`` and ``d`` are the squares of their
    sum and difference; so with covariance and variances. Both factors thus are ``(s - d) / (s + d)``.

    Parameters
    ----------
    windowed
        Windowed means of ``x + y``, ``x - y`` and the squares of both: ``4,...`` float64, of numpy or torch.
    """
    means, squares = windowed[:2], windowed[2:]
    means *= means
    squares -= means  # the variances of sum and difference
    means[0] += 2 * (0.01 * IMAGE_RANGE) ** 2
    squares[0] += 2 * (0.03 * IMAGE_RANGE) ** 2
    index = means[0] - means[1]
    index *= squares[0] - squares[1]
    means[0] += means[1]
    squares[0] += squares[1]
    means[0] *= squares[0]
    index /= means[0]
    return index
