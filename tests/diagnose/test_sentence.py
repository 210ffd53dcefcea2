"""The sentence of a verdict: whether a difference is pads or damage, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.diagnose import cause, sentence
from harness.planning.cut import choose_axis
from harness.types import Case, Comparison, Figure, Judgement, Outcome, Pads, Relation, Row, Size, Variant

PADDED = Case("144x144", "fake", Size(144, 144), ("x",))
SPLIT = Variant("fake", 2)
PLAIN = Case("128x128", "fake", Size(128, 128), ("x",))


def edge(relation: Relation, db: float | None = None, **more: Any) -> Comparison:
    if db is None:
        return Comparison(relation, "a", "b", exact_image=True, exact_latents=True)
    figures = (Figure("psnr", "", "latents", db, "dB"), *more.pop("figures", ()))
    return Comparison(relation, "a", "b", exact_image=False, exact_latents=False, figures=figures, **more)


def row_of(case: Case = PADDED, variant: Variant = SPLIT, **db: float | Comparison | None) -> Row:
    choice = choose_axis(case.size, 2)
    comparisons = [
        value if isinstance(value, Comparison) else edge(Relation(name), value) for name, value in db.items()
    ]
    return Row(case, variant, choice, choice.chosen, comparisons=tuple(comparisons))


def failing(*relations: Relation) -> list[Judgement]:
    """Judgements in the order in which a verdict holds them; each failing relation fails twice."""
    wrong = set(relations)
    return [
        Judgement(relation, relation not in wrong, f"{relation} {which}")
        for relation in Relation
        for which in ("first", "second")
    ]


def said(row: Row, *relations: Relation) -> str:
    return sentence.of_row(row, Outcome.FAIL if relations else Outcome.PASS, failing(*relations))


def test_where_nothing_is_known_of_pads_no_sentence_speaks_of_them() -> None:
    row = replace(row_of(exchange=40.0, control=140.0, pair=40.0), plan=None, choice=None)
    assert "pad" not in said(row) + said(row, Relation.EXCHANGE)
    assert "pads are not to blame" in said(replace(row, pads=Pads(47, 15)), Relation.EXCHANGE)
    assert "this cut adds 32 pad tokens" in said(replace(row, pads=Pads(47, 15)))


class TestDescribe:
    @pytest.mark.parametrize(
        ("comparison", "text"),
        [
            (None, "not measured"),
            (edge(Relation.PAIR), "exact"),
            (Comparison(Relation.PAIR, "a", "a", same_run=True), "exact"),
            (edge(Relation.PAIR, 141.25), "141.2 dB"),
            (Comparison(Relation.PAIR, "a", "b", problem="sizes differ: ..."), "sizes differ: ..."),
            (Comparison(Relation.PAIR, "a", "b", exact_image=False), "differs"),
            (
                Comparison(
                    Relation.PAIR,
                    "a",
                    "b",
                    exact_image=False,
                    exact_latents=True,
                    figures=(Figure("psnr", "", "image", 53.3, "dB"),),
                ),
                "53.3 dB of the image",
            ),
        ],
    )
    def test_in_a_few_characters(self, comparison: Comparison | None, text: str) -> None:
        assert sentence.describe(comparison) == text


class TestHealthy:
    def test_pads_are_told_from_damage(self) -> None:
        text = said(row_of(exchange=141.2, control=None, layout=33.8, pair=33.8))
        assert text == (
            "Splitting stays at the noise floor (exchange 141.2 dB). The 33.8 dB to the baseline are pads, not "
            "damage: this cut adds 32 pad tokens, and one device given as many differs just so (33.8 dB)."
        )

    def test_a_split_that_costs_nothing(self) -> None:
        assert said(row_of(exchange=None, layout=33.8, pair=33.8)).startswith(
            "Splitting costs nothing (exchange exact)"
        )

    def test_without_surplus_pads(self) -> None:
        assert said(row_of(PLAIN, exchange=154.6, layout=None, pair=154.6)) == (
            "Splitting stays at the noise floor (exchange 154.6 dB). "
            "The layout adds no pad tokens, so this is all a user sees (154.6 dB)."
        )

    def test_equal_to_the_last_bit(self) -> None:
        assert said(row_of(PLAIN, exchange=None, pair=None)) == ("Equal to the single-device picture to the last bit.")

    def test_one_device(self) -> None:
        text = said(row_of(variant=Variant("spatial"), exchange=150.0, pair=150.0))
        assert text == "One device, nothing is split: 150.0 dB against the baseline."

    def test_no_golden_yet(self) -> None:
        row = row_of(PLAIN, exchange=None, pair=None)
        text = sentence.of_row(row, Outcome.NO_GOLDEN, [])
        assert text == said(row) + " No golden is approved for this case yet."


class TestFailing:
    def test_a_broken_split(self) -> None:
        text = said(row_of(exchange=21.1, control=145.0, pair=21.0), Relation.EXCHANGE)
        assert text == (
            "Splitting over 2 ranks damages the picture: exchange exchange first. On one device the engine is right "
            "(control 145.0 dB), and pads are not to blame: the replay has as many."
        )

    def test_points_at_the_worst_tile(self) -> None:
        tile = Figure("worst-tile", "", "image", 9.0, "dB", (32, 64, 64, 96))
        row = row_of(exchange=edge(Relation.EXCHANGE, 21.1, figures=(tile,)), control=None)
        assert said(row, Relation.EXCHANGE).endswith(" Worst in the box from (32, 64) to (64, 96) px.")
        nowhere = row_of(exchange=edge(Relation.EXCHANGE, 21.1, figures=(replace(tile, where_px=None),)), control=None)
        assert "Worst in the box" not in said(nowhere, Relation.EXCHANGE)

    def test_an_engine_that_is_wrong_alone(self) -> None:
        text = said(row_of(exchange=61.0, control=61.0), Relation.EXCHANGE, Relation.CONTROL)
        assert text == "fake is wrong on one device already: control control first."

    def test_a_cache_that_decides_otherwise(self) -> None:
        text = said(row_of(exchange=21.1), Relation.CACHE, Relation.EXCHANGE)
        assert text == "The cache decides otherwise when the picture is split: cache first."

    def test_a_baseline_that_has_moved(self) -> None:
        text = said(row_of(), Relation.GOLDEN_BASELINE, Relation.GOLDEN_CANDIDATE)
        assert text == "The baseline no longer draws the approved picture: golden-baseline first."

    @pytest.mark.parametrize(
        ("relation", "text"),
        [
            (Relation.LAYOUT, "Pads cost more than was approved: layout first."),
            (Relation.PAIR, "The picture is further from the baseline than was approved: pair first."),
            (
                Relation.GOLDEN_CANDIDATE,
                "The picture is further from the golden than was approved: golden-candidate first.",
            ),
        ],
    )
    def test_worse_than_approved(self, relation: Relation, text: str) -> None:
        assert said(row_of(exchange=None, layout=20.0, pair=20.0), relation) == text

    def test_the_sentence_tells_of_the_cause(self) -> None:
        row = row_of(exchange=None, layout=20.0, pair=20.0)
        relations = (Relation.LAYOUT, Relation.PAIR, Relation.GOLDEN_CANDIDATE)
        assert cause.of_judgements(row, failing(*relations)) == "layout"
        assert said(row, *relations) == "Pads cost more than was approved: layout first."
