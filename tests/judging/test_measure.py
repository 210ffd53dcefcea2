"""Samples to figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness import plugins
from harness.judging.measure import find_problem, measure
from harness.planning.cut import cut
from harness.plugins import Context
from harness.runs.sample import Sample
from harness.types import Comparison, Figure, Relation, Size

METRICS = plugins.load_all("metrics")
UNCUT, CUT = Context(), Context(cut(Size(96, 64), 2, "h"))


def latents(batch: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(batch, 4, 8, 12)).astype(np.float32)


def picture(seed: int = 0, height: int = 64, width: int = 96) -> Any:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def sample(key: str, images: Any = (), values: Any = None, trajectory: Any = None) -> Sample:
    return Sample(key, tuple(images) if images is not None else None, values, trajectory)


def compared(reference: Sample, candidate: Sample, context: Context = UNCUT) -> Comparison:
    return measure(Relation.PAIR, reference, candidate, [metric() for metric in METRICS], context)


class TestMeasure:
    def test_equal_is_exact_and_has_no_figures(self) -> None:
        comparison = compared(
            sample("a", [picture()], latents()),
            sample("b", [picture()], latents()),
        )
        assert (comparison.exact_image, comparison.exact_latents, comparison.exact) == (True, True, True)
        assert comparison.figures == ()
        assert not comparison.same_run
        assert comparison.problem is None

    def test_one_run_is_compared_with_itself_without_a_look(self) -> None:
        lost = Sample("a", None, None)
        assert compared(lost, lost).same_run
        assert compared(lost, lost).exact

    def test_every_metric_speaks_on_every_domain_it_knows(self) -> None:
        sides = sample("a", [picture()], latents()), sample("b", [picture(1)], latents(seed=1))
        comparison = compared(*sides, CUT)
        assert {(f.metric, f.domain) for f in comparison.figures} == {
            (metric.name, domain) for metric in METRICS for domain in metric.domains
        }
        assert (comparison.exact_image, comparison.exact_latents) == (False, False)
        assert compared(*sides).figures == tuple(figure for figure in comparison.figures if figure.metric != "seam")
        assert (comparison.reference, comparison.candidate, comparison.relation) == ("a", "b", Relation.PAIR)

    def test_one_domain_may_be_equal_and_the_other_not(self) -> None:
        other = latents()
        other[0, 0, 0, 0] += np.float32(1e-6)
        comparison = compared(sample("a", [picture()], latents()), sample("b", [picture()], other))
        assert (comparison.exact_image, comparison.exact_latents, comparison.exact) == (True, False, False)
        assert {figure.domain for figure in comparison.figures} == {"latents"}
        figure = comparison.figure("max-abs", "latents")
        assert figure is not None
        assert figure.value == pytest.approx(1e-6, rel=0.1)

    @pytest.mark.parametrize("worst", [0, 2])
    def test_a_batch_is_as_bad_as_its_worst_picture(self, worst: int) -> None:
        pictures = [picture(seed) for seed in range(3)]
        changed = [array.copy() for array in pictures]
        changed[1][0, 0] += 3
        changed[worst][10:40, 20:60] += 50
        comparison = compared(sample("a", pictures, latents(3)), sample("b", changed, latents(3)))
        alone = compared(sample("a", [pictures[worst]]), sample("b", [changed[worst]]))
        assert comparison.figures == alone.figures
        assert comparison.figure("max-abs", "image") == Figure(
            "max-abs", "maximum over elements", "image", 50.0, "of 255", (16, 0, 32, 16)
        )

    def test_a_picture_that_cannot_be_measured_is_the_worst(self) -> None:
        flat, other = np.zeros((2, 4, 8, 12), np.float32), latents(2)
        other[0] = 1
        flat[1] = other[1]
        flat[1, 0, 0, 0] += 1e-4
        figure = compared(sample("a", values=flat), sample("b", values=other)).figure("psnr", "latents")
        assert figure is not None
        assert figure.value is None

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("side", ["reference", "candidate"])
    def test_values_that_are_not_finite(self, bad: float, side: str) -> None:
        broken = latents()
        broken[0, 1, 2, 3] = bad
        sides = {"reference": latents(), "candidate": latents()} | {side: broken}
        comparison = compared(*(sample(name, [picture()], array) for name, array in sides.items()))
        assert comparison.problem == f"the {side}'s latents hold NaN or infinity"
        assert comparison.figures == ()
        assert not comparison.exact

    def test_sizes_that_differ_are_never_resized(self) -> None:
        comparison = compared(sample("a", [picture()]), sample("b", [picture(height=48)]))
        assert comparison.problem == "sizes differ: image should be 1 of 96x64 px, is 1 of 96x48 px"
        assert comparison.figures == ()
        assert comparison.exact_image is None

    def test_transposed_is_another_size(self) -> None:
        turned = np.ascontiguousarray(latents().transpose(0, 1, 3, 2))
        problem = compared(sample("a", values=latents()), sample("b", values=turned)).problem
        assert problem == "sizes differ: latents should be 1 of 12x8 cells, 4 channels, is 1 of 8x12 cells, 4 channels"

    def test_a_picture_too_few(self) -> None:
        assert "should be 2 of 96x64 px, is 1 of" in str(
            find_problem(sample("a", [picture(), picture()]), sample("b", [picture()]))
        )
        assert "should be 1 of 96x64 px, is absent" in str(find_problem(sample("a", [picture()]), sample("b", [])))

    def test_a_golden_without_pictures_goes_by_its_latents(self) -> None:
        golden, run = sample("golden", None, latents()), sample("run", [picture()], latents())
        comparison = compared(golden, run)
        assert (comparison.exact_image, comparison.exact_latents, comparison.exact) == (None, True, True)
        other = compared(golden, sample("run", [picture()], latents(seed=1)))
        assert {figure.domain for figure in other.figures} == {"latents"}

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            (sample("a", None, latents()), sample("b", [picture()], None)),
            (sample("a", [], None), sample("b", [], None)),
        ],
    )
    def test_nothing_in_common_is_a_problem_not_a_match(self, left: Sample, right: Sample) -> None:
        comparison = compared(left, right)
        assert str(comparison.problem).startswith("nothing to compare")
        assert not comparison.exact

    def test_latents_after_each_step(self) -> None:
        path = np.stack([latents(), latents(seed=1), latents(seed=2)])
        other = path.copy()
        other[1:] += np.float32(1e-3)
        steps = compared(sample("a", (), path[-1], path), sample("b", (), other[-1], other)).steps_db
        span = float(path[1].max() - path[1].min())
        assert steps[0] is None
        assert steps[1] == pytest.approx(20 * math.log10(span / 1e-3), abs=0.01)
        assert len(steps) == 3
        assert compared(sample("a", (), path[-1], path), sample("b", (), other[-1])).steps_db == ()

    def test_the_worst_and_the_median_token_after_each_step(self) -> None:
        path = np.stack([latents(), latents(seed=1)])
        other = path.copy()
        other[1] += np.float32(1e-3)
        other[1, 0, :, 2:4, 4:6] += np.float32(0.1)  # one token of 24
        found = compared(sample("a", (), path[-1], path), sample("b", (), other[-1], other))
        span = float(path[1].max() - path[1].min())
        assert found.steps_worst_db == (None, pytest.approx(20 * math.log10(span / 0.101), abs=0.01))
        assert found.steps_median_db == (None, pytest.approx(20 * math.log10(span / 1e-3), abs=0.01))
        assert found.steps_median_db[1] > found.steps_db[1] > found.steps_worst_db[1]  # type: ignore[operator]

    def test_latents_that_hold_less_than_their_reference(self) -> None:
        fine = latents()
        coarse = (fine.view(np.uint32) & 0xFFFF0000).view(np.float32)
        assert compared(sample("a", (), fine), sample("b", (), coarse)).narrowed
        assert not compared(sample("a", (), coarse), sample("b", (), fine)).narrowed
        assert not compared(sample("a", (), coarse), sample("b", (), coarse + coarse)).narrowed
        assert not compared(sample("a", (), fine), sample("b", (), fine + np.float32(0.1))).narrowed
