"""What metrics share: sums over strips, whatever the height."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from harness.metrics._arrays import strip_edges, strip_sums
from harness.metrics.psnr import Psnr
from harness.metrics.seam import Seam
from harness.metrics.worst_tile import WorstTile
from harness.planning.cut import cut
from harness.plugins import Context
from harness.types import Domain, Size

SHAPES: list[tuple[Domain, tuple[int, ...]]] = [
    ("image", (64, 96, 3)),
    ("image", (47, 80, 3)),  # strips that begin at both ends
    ("image", (20, 33, 3)),  # less than a tile, more than a strip
    ("image", (9, 7, 3)),  # less than a strip
    ("latents", (16, 8, 12)),
    ("latents", (16, 9, 5)),
    ("latents", (4, 3, 3)),
    ("latents", (4, 1, 9)),
]


def pair(domain: Domain, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    if domain == "image":
        return tuple(generator.integers(0, 256, (2, *shape), dtype=np.uint8))
    return tuple(generator.normal(size=(2, *shape)).astype(np.float32))


def squares_of(domain: Domain, a: Any, b: Any) -> Any:
    """Squared differences ``H,W``, the mean over channels, the plain way."""
    squares = np.square(np.subtract(b, a, dtype=np.float64))
    return squares.mean(axis=-1 if domain == "image" else 0)


def decibels(a: Any, domain: Domain, error: float) -> float:
    span = 255.0 if domain == "image" else float(a.max()) - float(a.min())
    return 10 * math.log10(span**2 / error)


@pytest.mark.parametrize(("domain", "shape"), SHAPES)
def test_strips_lose_nothing(domain: Domain, shape: tuple[int, ...]) -> None:
    a, b = pair(domain, shape)
    squares = squares_of(domain, a, b)
    edges = strip_edges(len(squares), domain)
    assert (edges[0], edges[-1]) == (0, len(squares))
    sums = strip_sums(a, b, domain)
    num_values = sums.shape[1] // squares.shape[1]
    by_place = sums.reshape(len(sums), -1, num_values).sum(axis=2) / num_values
    expected = [squares[start:end].sum(axis=0) for start, end in itertools.pairwise(edges)]
    np.testing.assert_allclose(by_place, expected, rtol=1e-12)  # float64 in another order
    # Both are sums of the very squares; rounding apart they cannot differ.
    figure = Psnr().measure(a, b, domain, Context())
    assert figure.value == pytest.approx(decibels(a, domain, squares.mean()), rel=1e-12)


@pytest.mark.parametrize(("domain", "shape"), SHAPES)
def test_the_worst_tile_is_that_of_all_tiles(domain: Domain, shape: tuple[int, ...]) -> None:
    a, b = pair(domain, shape)
    squares = squares_of(domain, a, b)
    side, scale = (32, 1) if domain == "image" else (4, 8)
    height, width = squares.shape
    tiles = {}
    for top in (*range(0, height - side, side), max(0, height - side)):
        for left in (*range(0, width - side, side), max(0, width - side)):
            box = (left, top, min(left + side, width), min(top + side, height))
            tiles[tuple(edge * scale for edge in box)] = squares[top : top + side, left : left + side].mean()
    worst = max(tiles, key=tiles.__getitem__)
    figure = WorstTile().measure(a, b, domain, Context())
    assert figure.where_px == worst
    assert figure.value == pytest.approx(decibels(a, domain, tiles[worst]), rel=1e-12)


@pytest.mark.parametrize("axis", ["h", "w"])
@pytest.mark.parametrize(("domain", "shape"), [case for case in SHAPES if case[1] != (9, 7, 3)])
def test_the_seam_is_that_of_single_lines(domain: Domain, shape: tuple[int, ...], axis: Any) -> None:
    a, b = pair(domain, shape)
    squares = squares_of(domain, a, b)
    lines = squares.mean(axis=1 if axis == "h" else 0)
    token = 16 if domain == "image" else 2
    plan = cut(Size(32, 32), 2, axis)
    assert plan.origins == (0, 1)
    near = np.zeros(len(lines), bool)
    near[: 2 * token] = True
    figure = Seam().measure(a, b, domain, Context(plan))
    if near.all():
        assert figure.value is None
    else:
        expected = 10 * math.log10(lines[near].mean() / lines[~near].mean())
        assert figure.value == pytest.approx(expected, abs=1e-11)


def test_sums_of_the_largest_differences_do_not_overflow() -> None:
    black, white = np.zeros((2048, 16, 3), np.uint8), np.full((2048, 16, 3), 255, np.uint8)
    sums = strip_sums(black, white, "image")
    assert (sums == 16 * 255**2).all()
    assert sums.sum(axis=0).tolist() == [2048 * 255**2] * 48
    assert Psnr().measure(black, white, "image", Context()).value == pytest.approx(0.0, abs=1e-12)
