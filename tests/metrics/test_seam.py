"""The seam metric: error along shard borders against elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.seam import Seam
from harness.planning.cut import cut
from harness.plugins import Context
from harness.types import Domain, Figure, ShardPlan, Size

SIZE = Size(176, 240)  # 11 columns and 15 rows of tokens


def sides(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """A reference, and its like with the same error everywhere."""
    random = np.random.default_rng(0)
    if domain == "image":
        reference = random.integers(20, 200, (SIZE.height_px, SIZE.width_px, 3), dtype=np.uint8)
        return reference, reference + np.uint8(2)
    reference = random.normal(size=(16, SIZE.height_px // 8, SIZE.width_px // 8)).astype(np.float32)
    return reference, reference + np.float32(0.5)


def measure(reference: np.ndarray, candidate: np.ndarray, domain: Domain, plan: ShardPlan) -> Figure:
    figure = Seam().measure(reference, candidate, domain, Context(plan))
    assert figure is not None
    return figure


@pytest.mark.parametrize("domain", ["image", "latents"])
def test_an_even_error_is_no_seam(domain: Domain) -> None:
    figure = measure(*sides(domain), domain, cut(SIZE, 3, "h"))
    assert figure.value == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("domain", ["image", "latents"])
@pytest.mark.parametrize(("axis", "box"), [("h", (0, 144, 176, 176)), ("w", (112, 0, 144, 240))])
def test_the_worst_border_is_named_and_measured(domain: Domain, axis: str, box: tuple[int, ...]) -> None:
    plan = cut(SIZE, 3, axis)  # type: ignore[arg-type]
    reference, candidate = sides(domain)
    scale = 1 if domain == "image" else 8
    left, top, right, bottom = (side // scale for side in box)
    rows, columns = slice(top, bottom), slice(left, right)
    place = (rows, columns) if domain == "image" else (slice(None), rows, columns)
    candidate[place] += candidate.dtype.type(2 if domain == "image" else 0.5)  # twice the error there
    figure = measure(reference, candidate, domain, plan)
    assert figure.where_px == box
    # Two borders of equal length, one of four times the squared error: (1 + 4) / 2 of the rest.
    assert figure.value == pytest.approx(10 * np.log10(2.5), abs=1e-3)


def test_a_border_needs_a_cut_and_something_beside_it() -> None:
    reference, candidate = sides("image")
    context = Context(cut(SIZE, 1, "h"))
    assert Seam().measure(reference, candidate, "image", Context()) is None
    assert Seam().measure(reference, candidate, "image", context) is None
    assert measure(reference, candidate, "image", cut(SIZE, 11, "w")).value is None


def test_all_error_at_the_border_is_no_number() -> None:
    reference, _ = sides("latents")
    candidate = reference.copy()
    candidate[:, 16] += 1  # the border of two ranks lies at row 8 of tokens
    assert measure(reference, candidate, "latents", cut(SIZE, 2, "h")).value is None
