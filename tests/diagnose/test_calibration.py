"""Scatter of healthy comparisons, and what a comparison's errors are in it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness import codec
from harness.diagnose import calibration, noise_floor
from harness.diagnose.calibration import Calibration, Key, Request, deviations, fit, stored
from harness.types import Case, Comparison, Figure, Relation, Row, Size, Variant

PLATFORM = Calibration("m", "weights", "cpu", "bfloat16")
FIRST, LAST, PICTURE = ("latents", 1), ("latents", 2), ("picture", 2)


def errors(rng: random.Random, spread: float = 0.3) -> dict[Key, float]:
    return {
        FIRST: -80 + rng.gauss(0, 4),
        LAST: -60 + rng.gauss(0, spread),
        PICTURE: -52 + rng.gauss(0, spread),
    }


def requests(number: int = 60, seed: int = 0, spread: float = 0.3) -> list[Request]:
    rng = random.Random(seed)
    draws = [tuple(errors(rng, spread) for _ in range(4)) for _ in range(number)]
    return [Request("plain small", 2, own, tuple(errors(rng, spread) for _ in range(4))) for own in draws]


def test_spreads_are_those_of_healthy_comparisons_and_the_bound_lies_beyond_all() -> None:
    fitted = fit(requests(), PLATFORM)
    group = fitted.groups["plain small"]
    assert fitted.suffices
    assert fitted.values == 240
    assert group.spreads_db["latents first"] > 3 * group.spreads_db["latents last"]
    assert fitted.tail_from < fitted.largest < fitted.bound < 40
    wide = fit(requests(spread=0.9), PLATFORM).groups["plain small"]
    assert wide.spreads_db["latents last"] == pytest.approx(3 * group.spreads_db["latents last"], rel=0.4)


def test_healthy_comparisons_of_other_requests_stay_within_the_bound_and_damage_does_not() -> None:
    fitted = fit(requests(), PLATFORM)
    group = fitted.groups["plain small"]
    for request in requests(seed=1):
        for candidate in request.healthy:
            assert max(value for _, value in deviations(request, candidate, group).values()) < fitted.bound
    damaged = {**request.healthy[0], LAST: -56.0}
    assert deviations(request, damaged, group)[LAST][1] > fitted.bound


def test_draws_that_are_equal_by_luck_ask_for_nothing() -> None:
    fitted = fit(requests(), PLATFORM)
    group = fitted.groups["plain small"]
    lucky = dict.fromkeys((FIRST, LAST, PICTURE), -math.inf)
    request = Request("plain small", 2, (lucky,) * 4)
    usual = {FIRST: -80.0, LAST: -60.0, PICTURE: -52.0}
    assert max(value for _, value in deviations(request, usual, group).values()) < fitted.bound
    assert deviations(request, {LAST: -50.0}, group)[LAST][1] > fitted.bound


def test_few_comparisons_make_no_calibration(tmp_path: Path) -> None:
    few = fit(requests(10), PLATFORM)
    assert not few.suffices
    assert fit(requests(2), PLATFORM) == PLATFORM
    codec.write_json(tmp_path / "few.json", few)
    assert stored("weights", "cpu", "bfloat16", (tmp_path,)) is None


def test_a_platform_is_weights_device_and_dtype(tmp_path: Path) -> None:
    fitted = fit(requests(), PLATFORM)
    codec.write_json(tmp_path / calibration.file_name("m", "cpu", "bfloat16"), fitted)
    assert stored("weights", "cpu", "bfloat16", (tmp_path, tmp_path / "none")) == fitted
    for other in (("others", "cpu", "bfloat16"), ("weights", "cuda", "bfloat16"), ("weights", "cpu", "float16")):
        assert stored(*other, (tmp_path,)) is None


def row_of(*comparisons: Comparison, draws: int = 4) -> Row:
    found = [replace(compared(Relation.FLOOR, -60.0), candidate=f"{number}") for number in range(draws)]
    case = Case("a", "m", Size(160, 160), ("x",), steps=2, dtype="bfloat16")
    return Row(case, Variant("spatial", 2), comparisons=(*found, *comparisons))


def compared(relation: Relation, last: float, first: float = -80.0, picture: float = -52.0) -> Comparison:
    figures = (Figure("psnr", "", "latents", -last, "dB"), Figure("psnr", "", "image", -picture, "dB"))
    sides = {"exact_image": False, "exact_latents": False, "figures": figures, "steps_db": (-first, -last)}
    return Comparison(relation, "a", "b", **sides)  # type: ignore[arg-type]


def test_the_largest_deviation_decides_and_the_sentence_names_it() -> None:
    fitted = fit(requests(), PLATFORM)
    floor = noise_floor.of(row_of(), fitted)
    assert floor is not None
    good, picture = floor.judge(compared(Relation.EXCHANGE, -60.0))
    assert (good.ok, picture.ok, picture.bound and picture.bound.domain) == (True, True, "image")
    bad, picture = floor.judge(compared(Relation.EXCHANGE, -59.9, first=-20.0))
    assert (bad.ok, picture.ok) == (False, True)
    assert bad.sentence.startswith(
        "after step 1 the latents as a whole differ by 60.0 dB more than in the noisiest of 4"
    )
    assert f"{bad.value:.1f} standard deviations, asked for at most {fitted.bound:g}" in bad.sentence
    worse = floor.judge(compared(Relation.EXCHANGE, -60.0, picture=-40.0))
    assert [judgement.ok for judgement in worse] == [True, False]
    assert worse[1].sentence.startswith("the picture as a whole differs by 12.0 dB more")


def test_near_the_bound_a_passing_comparison_is_suspicious() -> None:
    fitted = fit(requests(), PLATFORM)
    floor = noise_floor.of(row_of(), fitted)
    assert floor is not None
    spread = fitted.groups["plain small"].spreads_db["latents last"]
    near = floor.judge(compared(Relation.EXCHANGE, -60.0 + 0.8 * fitted.bound * spread))
    assert all(judgement.ok for judgement in near)
    assert noise_floor.suspicious(near) == near[:1]
    assert noise_floor.suspicious(floor.judge(compared(Relation.EXCHANGE, -60.0))) == []


def test_runs_of_earlier_versions_are_held_to_the_margin() -> None:
    floor = noise_floor.of(row_of(draws=1), fit(requests(), PLATFORM))
    assert floor is not None
    assert {bound.unit for bound in floor.bounds()} == {"dB"}
    assert [judgement.ok for judgement in floor.judge(compared(Relation.EXCHANGE, -50.1))] == [True, True]
    assert [judgement.ok for judgement in floor.judge(compared(Relation.EXCHANGE, -49.9))] == [False, True]


def test_calibrations_of_the_package_suffice() -> None:
    for file in calibration.SHIPPED.glob("*.json"):
        found = codec.read_json(file, Calibration)
        assert file.name == calibration.file_name(found.model, found.device, found.dtype)
        assert found.suffices
        assert stored(found.weights, found.device, found.dtype) == found
