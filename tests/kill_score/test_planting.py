"""Rows for planted bugs, and a matrix drawn otherwise than its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.kill_score import planting
from harness.kill_score.planting import Overrides, Place
from harness.session import steps

MATRIX = """
schema = 1
model = "nano"
steps = 2
golden = "off"

[[case]]
size = ["144x144", "240x176"]
prompt = "a red ball"

[[case]]
sequence = "again"
size = ["240x176", "176x240"]
prompt = "a red ball"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
"""


@pytest.fixture
def planned(tmp_path: Path):
    path = tmp_path / "m.toml"
    path.write_text(MATRIX)
    return steps.prepare(path)


def test_a_bug_goes_to_the_cheapest_row_and_rather_to_one_without_surplus_pads(planned):
    places, _ = planting.place(planned[1], ["attention-local"])
    assert places == [Place("attention-local", (("240x176", "spatial-u2-h"),))]


def test_a_bug_of_the_second_request_takes_the_first_one_along(planned):
    (where,), _ = planting.place(planned[1], ["rope-table-kept"])
    assert [case for case, _ in where.pairs] == ["again-1-240x176", "again-2-176x240"]


def test_what_no_row_can_show_is_named_with_what_it_needs(planned):
    places, not_planted = planting.place(planned[1], ["cache-per-rank", "ranks-misnumbered"])
    assert not places
    assert not_planted == {"cache-per-rank": "cache", "ranks-misnumbered": "ranks: 3"}


def test_an_unknown_bug_is_a_usage_error(planned):
    with pytest.raises(UsageError, match="attention-local"):
        planting.place(planned[1], ["attention-locl"])


def test_bugs_stand_beside_the_healthy_rows_of_a_matrix(planned):
    matrix, graph = planned
    places, _ = planting.place(graph, ["attention-local", "gather-missed"])
    whole, part = (planting.planted(matrix, places, whole) for whole in (True, False))
    faulty = [(case, label) for case, label in whole.pairs if "attention" in label or "gather" in label]
    assert faulty == [("240x176", "spatial-u2-h-attention-local"), ("240x176", "spatial-u2-h-gather-missed")]
    assert len(whole.pairs) == len(matrix.pairs) + 2
    assert part.pairs == (("240x176", "spatial-u2-h"), *faulty)
    assert [case.name for case in part.cases] == ["240x176"]
    steps.plan(whole)  # a graph can be built of it


def test_only_cases_with_a_bug_that_hangs_get_its_short_time_limit(planned):
    matrix, graph = planned
    places, _ = planting.place(graph, ["gather-missed"])
    limits = {case.name: case.timeout_s for case in planting.planted(matrix, places, whole=True).cases}
    assert limits["240x176"] == planting.HANG_TIMEOUT_S
    assert limits["144x144"] == 120


def test_where_bugs_are_planted_can_be_read_off_a_run(planned):
    matrix, graph = planned
    places, _ = planting.place(graph, ["attention-local", "rope-table-kept"])
    rows = steps.plan(planting.planted(matrix, places, whole=True)).rows
    assert planting.places_in(rows) == places


# ---------------------------------------------------------------- drawn otherwise

SHAPES = (
    MATRIX
    + """
[[case]]
name = "guided"
size = "240x176"
prompt = "a ball"
guidance_scale = 2.0

[[case]]
name = "padded"
size = ["208x176", "176x240"]
prompt = "a red ball"

[[variant]]
engine = "spatial"
ulysses = 3
"""
)


@pytest.fixture
def shapes(tmp_path: Path):
    path = tmp_path / "m.toml"
    path.write_text(SHAPES)
    return steps.prepare(path)[0]


def test_without_overrides_a_matrix_is_its_own(shapes):
    assert planting.overridden(shapes, Overrides()) == shapes


def test_a_case_takes_the_size_of_its_orientation_and_equal_ones_are_kept_once(shapes):
    changed = planting.overridden(shapes, Overrides("nano-random", "bfloat16", "cuda", ("512x256",)))
    assert {(case.model, case.dtype, case.device) for case in changed.cases} == {("nano-random", "bfloat16", "cuda")}
    assert [case.name for case in changed.cases] == [
        "512x256",  # the square is left out
        "again-1-512x256",
        "again-2-256x512",
        "guided",
        "padded-256x512",  # the landscape one is the first case
    ]
    assert {str(case.size) for case in changed.cases} == {"512x256", "256x512"}
    assert {name for name, _ in changed.pairs} == {case.name for case in changed.cases}


def test_each_orientation_may_have_a_size_of_its_own(shapes):
    changed = planting.overridden(shapes, Overrides(sizes=("512x256", "128x192", "96x96")))
    assert {str(case.size) for case in changed.cases} == {"512x256", "128x192", "96x96"}


def test_rows_on_too_many_ranks_are_left_out(shapes):
    changed = planting.overridden(shapes, Overrides(max_ranks=2))
    assert {variant.degree for variant in changed.variants} == {2}
    assert len(changed.pairs) == len(changed.cases)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(dtype="float8"), "--dtype 'float8'"),
        (Overrides(device="tpu"), "--device 'tpu'"),
        (Overrides(sizes=("250x100",)), "--size: .*multiple of 16"),
        (Overrides(sizes=("512x256", "256x128")), "--size 256x128: 512x256 has the same orientation"),
        (Overrides(max_ranks=1), "no row is left"),
    ],
)
def test_what_cannot_be_drawn_is_a_usage_error(shapes, overrides, message):
    with pytest.raises(UsageError, match=message):
        planting.overridden(shapes, overrides)
