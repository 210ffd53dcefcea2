"""The words of the harness: sizes, keys, labels, digests, bounds."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import pkgutil
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import codec, types
from harness.planning.cut import cut
from harness.types import (
    Bound,
    Case,
    Comparison,
    FailureKind,
    Figure,
    Relation,
    Row,
    Run,
    RunSpec,
    Size,
    Variant,
    digest_of,
)

CASE = Case("720x720", "nano", Size(720, 720), ("a red ball",))
PLAN = cut(CASE.size, 2, "h")
SPEC = RunSpec(CASE, "spatial", "models/nano", "weights", "source", ulysses=2, plan=PLAN)


@pytest.mark.parametrize("module", ["errors", "matrix.golden_store", "planning.cut", "diagnose.sentence"])
def test_examples_in_docstrings_are_true(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"harness.{module}"))
    assert found.attempted
    assert not found.failed


class TestSize:
    def test_is_width_first(self) -> None:
        size = Size.parse("1280x720")
        assert (size.width_px, size.height_px) == (1280, 720)
        assert (size.tokens_w, size.tokens_h, size.tokens) == (80, 45, 3600)

    @given(st.integers(1, 62499), st.integers(1, 62499))
    def test_text_and_back(self, columns: int, rows: int) -> None:
        size = Size(columns * 16, rows * 16)
        assert Size.parse(str(size)) == size

    @pytest.mark.parametrize("text", ["", "720", "720x", "x720", "720X720", "-16x16", "16 x 16", "16x16x3", "16x16\n"])
    def test_not_width_by_height(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is not WIDTHxHEIGHT in pixels; write for example '720x1280'$"):
            Size.parse(text)

    @pytest.mark.parametrize(
        ("text", "wrong", "nearest"),
        [("0x64", 0, 16), ("64x0", 0, 16), ("7x64", 7, 16), ("64x730", 730, 736), ("727x64", 727, 720)],
    )
    def test_names_the_nearest_multiple(self, text: str, wrong: int, nearest: int) -> None:
        with pytest.raises(ValueError, match=rf"{wrong} is no positive multiple of 16; the nearest is {nearest}$"):
            Size.parse(text)


class TestCase:
    @pytest.mark.parametrize("change", [{"name": "other"}, {"timeout_s": 1.0}, {"golden": "off"}, {"sequence": "one"}])
    def test_what_does_not_change_the_picture(self, change: dict[str, Any]) -> None:
        assert replace(CASE, **change).identity() == CASE.identity()

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "fake"},
            {"revision": "abc"},
            {"size": Size(720, 736)},
            {"prompts": ("a red ball.",)},
            {"negative_prompts": ("blue",)},
            {"seed": 1},
            {"steps": 5},
            {"guidance_scale": 1.0},
            {"num_images_per_prompt": 2},
            {"dtype": "bfloat16"},
            {"device": "cuda"},
        ],
    )
    def test_what_does(self, change: dict[str, Any]) -> None:
        assert replace(CASE, **change).key != CASE.key

    def test_every_field_is_in_one_of_the_two_tests_above(self) -> None:
        assert set(CASE.identity()) == {f.name for f in dataclasses.fields(Case)} - {
            "name",
            "timeout_s",
            "golden",
            "sequence",
        }

    @settings(max_examples=30)
    @given(st.text(max_size=50))
    def test_no_prompt_reaches_a_path(self, prompt: str) -> None:
        assert re.fullmatch(r"720x720-[0-9a-f]{8}", replace(CASE, prompts=(prompt,)).key)

    def test_pictures_of_a_batch(self) -> None:
        assert replace(CASE, prompts=("a", "b", "c"), num_images_per_prompt=2).num_images == 6


class TestVariant:
    def test_degree_and_label(self) -> None:
        assert Variant("spatial", ulysses=2).label == "spatial-u2-auto"
        variant = Variant("spatial", 2, 3, "h", "exact", "cache-dit", "seam", {"b": 2, "a": 1})
        assert variant.degree == 6
        assert variant.label == "spatial-u2-r3-h-exact-cache-dit-seam-a=1-b=2"
        assert Variant("xfuser", axis="none").label == "xfuser-u1"

    @pytest.mark.parametrize(
        "change",
        [
            {"engine": "other"},
            {"ulysses": 3},
            {"ring": 2},
            {"axis": "w"},
            {"layout": "exact"},
            {"cache": "cache-dit"},
            {"fault": "seam"},
            {"options": {"a": 1}},
        ],
    )
    def test_labels_tell_variants_apart(self, change: dict[str, Any]) -> None:
        assert replace(Variant("spatial"), **change).label != Variant("spatial").label

    def test_can_be_hashed_although_options_are_a_mapping(self) -> None:
        assert len({Variant("a", options={"x": 1}), Variant("a", options={"x": 1})}) == 1


class TestDigest:
    def test_of_a_value_does_not_depend_on_the_order_of_keys(self) -> None:
        assert digest_of({"a": 1, "b": [2, "ü"]}) == digest_of({"b": [2, "ü"], "a": 1})
        assert digest_of([1, 2]) != digest_of([2, 1])

    @pytest.mark.parametrize(
        "change",
        [
            {"model_path": "/elsewhere/nano"},
            {"interpreter": "/elsewhere/python"},
            {"case": replace(CASE, name="x", timeout_s=1.0, golden="off")},
        ],
    )
    def test_names_paths_and_limits_do_not_count(self, change: dict[str, Any]) -> None:
        assert replace(SPEC, **change).digest == SPEC.digest

    @pytest.mark.parametrize(
        "change",
        [
            {"case": replace(CASE, seed=1)},
            {"case": replace(CASE, prompts=("a blue ball",))},
            {"engine": "fake"},
            {"weights": "other"},
            {"source": "other"},
            {"ulysses": 3},
            {"ring": 2},
            {"layout": "exact"},
            {"cache": "cache-dit"},
            {"fault": "seam"},
            {"options": {"step_s": 1}},
            {"plan": replace(PLAN, axis="w")},
            {"plan": None},
            {"image_pad_tokens": 87},
            {"sequence": "one"},
            {"after": "0123456789abcdef"},
            {"environment": "0.5.9"},
        ],
    )
    def test_everything_else_does(self, change: dict[str, Any]) -> None:
        assert replace(SPEC, **change).digest != SPEC.digest

    def test_runs_of_earlier_versions_keep_theirs(self) -> None:
        """A run folder is read by newer versions: a new field must not change the digest of what does without it."""
        report = Path(__file__).parents[1] / "docs" / "nightly-example" / "report" / "report.json"
        runs = json.loads(report.read_text(encoding="utf-8"))["runs"]
        assert {digest: codec.decode(Run, run).spec.digest for digest, run in runs.items()} == {d: d for d in runs}

    def test_is_an_address(self) -> None:
        assert re.fullmatch(r"[0-9a-f]{16}", SPEC.digest)
        assert SPEC.world_size == 2
        assert replace(SPEC, ring=3).world_size == 6


def test_every_type_is_imported_from_one_place() -> None:
    modules = [importlib.import_module(f"harness.types.{found.name}") for found in pkgutil.iter_modules(types.__path__)]
    here = {
        name for module in modules for name, value in vars(module).items() if _is_defined_in(module.__name__, value)
    }
    assert len(modules) > 1
    assert here <= set(types.__all__)
    assert len(set(types.__all__)) == len(types.__all__)


def _is_defined_in(module: str, value: object) -> bool:
    return getattr(value, "__module__", None) == module and not getattr(value, "__name__", "_").startswith("_")


def test_origins_are_where_shards_begin() -> None:
    assert replace(PLAN, shard_tokens=(8, 7, 7)).origins == (0, 8, 15)


def test_only_raising_and_hanging_are_the_engines_fault() -> None:
    blamed_on_the_machine = {kind for kind in FailureKind if kind.infrastructure}
    assert blamed_on_the_machine == {
        FailureKind.KILLED,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.DISK_FULL,
        FailureKind.EXHAUSTED,
        FailureKind.STOPPED,
        FailureKind.LAUNCH,
        FailureKind.STOPPED,
    }


class TestComparison:
    @pytest.mark.parametrize(
        ("image", "latents", "same_run", "exact"),
        [
            (True, True, False, True),
            (None, True, False, True),
            (True, None, False, True),
            (True, False, False, False),
            (False, True, False, False),
            (None, None, False, False),
            (None, None, True, True),
        ],
    )
    def test_exact_is_all_that_both_sides_have(
        self, image: bool | None, latents: bool | None, same_run: bool, exact: bool
    ) -> None:
        assert Comparison(Relation.PAIR, "a", "b", same_run, None, image, latents).exact is exact

    def test_figures_are_found_by_metric_and_domain(self) -> None:
        one, two = (Figure("psnr", "x", domain, 1.0, "dB") for domain in ("image", "latents"))
        comparison = Comparison(Relation.PAIR, "a", "b", figures=(one, two))
        assert comparison.figure("psnr", "latents") is two
        assert comparison.figure("ssim", "image") is None


class TestBound:
    @pytest.mark.parametrize(
        ("direction", "below", "equal", "above"), [("at least", False, True, True), ("at most", True, True, False)]
    )
    def test_holds(self, direction: Any, below: bool, equal: bool, above: bool) -> None:
        bound = Bound("psnr", "latents", 30.0, "dB", "declared", direction=direction)
        assert [bound.holds(value) for value in (29.9, 30.0, 30.1)] == [below, equal, above]
        assert str(bound) == f"{direction} 30 dB (declared)"


def test_a_row_finds_its_comparisons() -> None:
    pair = Comparison(Relation.PAIR, "a", "b")
    row = Row(CASE, Variant("spatial", 2), comparisons=(pair,))
    assert row.name == "720x720/spatial-u2-auto"
    assert row.comparison(Relation.PAIR) is pair
    assert row.comparison(Relation.EXCHANGE) is None
