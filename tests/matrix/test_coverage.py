"""Which classes a matrix meets, and that what is proposed for the others meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import models
from harness.matrix.coverage import CLASSES, FLAT_CLASSES, Coverage, cover
from harness.matrix.schema import read_tables
from harness.matrix.suggest import additions, as_toml
from harness.models import captions
from harness.session import steps
from harness.types import Size

MATRICES = Path(__file__).resolve().parents[2] / "matrices"
SMALL = """
model = "fake"
golden = "off"
[[case]]
size = "128x128"
prompt = "a red ball"
[[variant]]
engine = "fake"
ulysses = 2
axis = ["auto", "w"]
"""


def covered(*paths: Path) -> Coverage:
    return cover([steps.prepare(path) for path in paths])


def proposed(path: Path) -> str:
    matrix, _ = steps.prepare(path)
    return as_toml(additions(matrix, covered(path).missing), matrix, read_tables(path))


@pytest.fixture(scope="module")
def ours() -> Coverage:
    return covered(MATRICES / "pr.toml", MATRICES / "features.toml")


def test_pr_and_features_meet_every_class(ours: Coverage) -> None:
    assert ours.missing == ()
    assert set(ours.rows) == set(CLASSES)


def test_rows_are_sorted_into_their_classes(bench: Any) -> None:
    rows = covered(bench.matrix_file(SMALL)).rows
    both = ("128x128/fake-u2-auto", "128x128/fake-u2-w")
    for name in ("orientation: square", "shards: even", "pads: none", "caption: off a multiple of 32", "ranks: 2"):
        assert rows[name] == both
    assert rows["axis won by: tie"] == both[:1]  # the other was asked for
    met = {name for name, found in rows.items() if found}
    assert met >= {"no guidance", "dtype: float32", "steps: more than 1"}
    assert len(met) == 9


@pytest.mark.parametrize(
    ("case", "variant", "name"),
    [
        ('size = "720x1280"', "", "axis won by: lower cost, h"),
        ('size = "1280x720"', "", "orientation: landscape"),
        ('size = "144x144"', "", "shards: uneven"),
        ('size = "144x144"', "", "pads: surplus"),
        ('size = "144x208"', "", "pads: as on one device"),
        ("num_images_per_prompt = 2", "", "several images"),
        ("guidance_scale = 2.0", "", "guidance"),
        ('prompt = ["a ball", "a red cone"]', "", "captions of a batch: equal buckets"),
        (f'prompt = ["a ball", "{"a " * 33}"]', "", "captions of a batch: different buckets"),
        (
            f'prompt = "a ball"\nguidance_scale = 2.0\nnegative_prompt = "{"a " * 33}"',
            "",
            "captions of a batch: different",
        ),
        (f'prompt = "{"a " * 64}"', "", "caption: at a multiple of 32"),
        ("", "ulysses = 6", "ranks: 6"),
        ("", "ulysses = 1\nring = 3", "ring"),
        ("", "ulysses = 3\nring = 2", "ring x Ulysses"),
        ("", 'layout = "exact"', "layout: exact"),
        ('dtype = "bfloat16"', "", "dtype: bfloat16"),
        ("steps = 1", "", "steps: 1"),
    ],
)
def test_each_class_is_told_by_what_makes_it(bench: Any, case: str, variant: str, name: str) -> None:
    keys = {"size": '"128x128"', "prompt": '"a red ball"', **dict(line.split(" = ", 1) for line in case.splitlines())}
    split = {"ulysses": "2", **dict(line.split(" = ", 1) for line in variant.splitlines())}
    tables = [[f"{key} = {value}" for key, value in table.items()] for table in (keys, split)]
    text = "\n".join(['model = "fake"', "[[case]]", *tables[0], "[[variant]]", 'engine = "fake"', *tables[1]])
    plain = covered(bench.matrix_file(SMALL)).rows
    found = covered(bench.matrix_file(text)).rows
    full = next(known for known in CLASSES if known.startswith(name))
    assert found[full]
    assert not plain[full]


def test_only_a_later_request_is_a_second_one(bench: Any) -> None:
    text = SMALL.replace("[[variant]]", 'sequence = "twice"\n[[case]]\nsize = "128x128"\nprompt = "x"\n[[variant]]')
    text = text.replace('prompt = "x"', 'prompt = "x"\nsequence = "twice"')
    names = ("twice-2-128x128/fake-u2-auto", "twice-2-128x128/fake-u2-w")
    rows = covered(bench.matrix_file(text)).rows
    assert rows["second request"] == names
    assert rows["second request: equal shape"] == names
    assert not rows["second request: the same again"]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("", "", "the same again"),
        ("", "seed = 1", "equal shape"),
        ("guidance_scale = 2.0", 'guidance_scale = 2.0\nnegative_prompt = "dark"', "other negative prompt"),
        ("", "steps = 3", "other step count"),
        ("", f'prompt = "{"a " * 33}"', "other bucket"),
        (f'prompt = ["a ball", "{"a " * 33}"]', f'prompt = ["{"a " * 33}", "a ball"]', "captions exchanged"),
    ],
)
def test_what_changes_between_two_requests_is_told(bench: Any, first: str, second: str, name: str) -> None:
    cases = [
        "\n".join(
            [
                "[[case]]",
                'sequence = "twice"',
                'size = "128x128"',
                *(["prompt = 'a ball'"] * ("prompt" not in keys.split())),
                keys,
            ]
        )
        for keys in (first, second)
    ]
    text = "\n".join(['model = "fake"', 'golden = "off"', *cases, "[[variant]]", 'engine = "fake"', "ulysses = 2"])
    rows = covered(bench.matrix_file(text)).rows
    met = {known.removeprefix("second request: ") for known, found in rows.items() if found and "request: " in known}
    shape = set() if name == "the same again" else {"equal shape"}
    assert met == {name} | shape


def test_rows_that_are_skipped_or_not_split_meet_nothing(bench: Any) -> None:
    for ulysses in (1, 4):  # four does not divide the six heads
        rows = covered(bench.matrix_file(SMALL.replace("ulysses = 2", f"ulysses = {ulysses}"))).rows
        assert not any(rows.values())


def test_what_is_proposed_for_pull_requests_meets_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "pr.toml"
    path.write_text((MATRICES / "pr.toml").read_text(encoding="utf-8"), encoding="utf-8")
    missing = covered(path).missing
    assert missing
    text = proposed(path)
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    assert covered(path).missing == ()
    assert text.count("[[case]]") + text.count("[[variant]]") <= 2 * len(missing)


@pytest.mark.parametrize("axis", ['["auto", "w"]', '"h"'])
@pytest.mark.parametrize("cases", ["", 'cases = ["128x128"]'])
def test_what_is_proposed_can_be_pasted(bench: Any, axis: str, cases: str) -> None:
    path = bench.matrix_file(SMALL.replace('["auto", "w"]', axis) + cases + "\n")
    text = proposed(path)
    path.write_text(path.read_text() + text)
    missing = covered(path).missing
    assert missing == ("cache", "attention: another back end", "graph")  # the fake engine has none


def test_the_search_finds_the_fewest_tokens(bench: Any) -> None:
    matrix, graph = steps.prepare(bench.matrix_file(SMALL))
    by_class = {}
    for name in cover([(matrix, graph)]).missing:
        for addition in additions(matrix, [name]):
            by_class[name] = addition
    assert by_class["orientation: portrait"].cases[0].size == Size(16, 32)
    assert by_class["shards: uneven"].cases[0].size.tokens == 3
    assert by_class["axis won by: lower cost, h"].cases[0].size == Size(48, 272)
    assert "axis won by: lower cost, h" in by_class["axis won by: lower cost, h"].meets
    assert by_class["ranks: 6"].cases == matrix.cases  # a class of its own sort takes the case at hand


def test_captions_are_counted_as_the_pipeline_does() -> None:
    count = captions.counter(models.resolve("nano"))
    assert count("a tower left, a small boat right, calm water, a bridge between them, clouds, morning") == 32
    assert 0 < count("") < count("a ball")
    assert count("ball " * 2000) == captions.MAX_TOKENS
    assert captions.counter(models.resolve("fake"))("three plain words") == 3


FLAT = """
model = "nano"
golden = "off"
[[case]]
size = "144x144"
prompt = "a red ball"
[[variant]]
engine = "diffusers-cp"
ulysses = 2
"""


def test_an_engine_that_cuts_the_flat_sequence_has_classes_of_its_own(bench: Any) -> None:
    found = covered(bench.matrix_file(FLAT))
    assert not [name for name in found.rows if name.startswith(("axis", "shards", "pads", "layout", "ring", "cache"))]
    assert {name for name in found.rows if name.startswith("flat")} == set(FLAT_CLASSES)
    assert found.rows["flat cut: even parts"]
    assert set(FLAT_CLASSES) - {"flat cut: even parts"} <= set(found.missing)


def test_additions_for_it_name_it_and_leave_nothing_missing(bench: Any) -> None:
    path = bench.matrix_file(FLAT)
    text = proposed(path)
    assert "spatial" not in text
    path.write_text(path.read_text() + text)
    assert covered(path).missing == ()


def test_the_matrix_of_other_engines_meets_what_they_can_be_wrong_at() -> None:
    found = covered(MATRICES / "engines.toml")
    assert not [name for name in found.missing if name.startswith("flat")]
