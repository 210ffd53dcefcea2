"""The cause of a failing verdict."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from harness.diagnose import cause
from harness.types import Case, Comparison, Failure, FailureKind, Judgement, Relation, Row, Size, Variant

CASE = Case("64x64", "fake", Size(64, 64), ("x",))


def row_of(problem: str | None = None) -> Row:
    exchange = Comparison(Relation.EXCHANGE, "replay", "candidate", problem=problem)
    return Row(CASE, Variant("fake", 2), comparisons=(exchange,))


def judgements(failing: Iterable[Relation]) -> list[Judgement]:
    wrong = set(failing)
    return [Judgement(relation, relation not in wrong, "") for relation in Relation]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (FailureKind.RAISED, "crash"),
        (FailureKind.HUNG, "hang"),
        (FailureKind.KILLED, "environment"),
        (FailureKind.OUT_OF_MEMORY, "environment"),
        (FailureKind.DISK_FULL, "environment"),
        (FailureKind.LAUNCH, "environment"),
    ],
)
def test_of_a_run_without_a_picture(kind: FailureKind, word: str) -> None:
    assert cause.of_failure(Failure(kind, "")) == word


def test_nothing_fails() -> None:
    assert cause.of_judgements(row_of(), judgements([])) is None
    assert cause.of_judgements(row_of(), [Judgement(Relation.PAIR, None, "shown")]) is None


@pytest.mark.parametrize(
    ("relation", "word"),
    [
        (Relation.GOLDEN_BASELINE, "golden drift"),
        (Relation.CONTROL, "engine"),
        (Relation.CACHE, "cache"),
        (Relation.EXCHANGE, "split"),
        (Relation.LAYOUT, "layout"),
        (Relation.PAIR, "split"),
        (Relation.GOLDEN_CANDIDATE, "golden drift"),
    ],
)
def test_of_one_failing_relation(relation: Relation, word: str) -> None:
    assert cause.of_judgements(row_of(), judgements([relation])) == word


def test_the_earliest_in_the_way_of_the_data_explains_the_rest() -> None:
    way = [
        Relation.CACHE,
        Relation.CONTROL,
        Relation.EXCHANGE,
        Relation.GOLDEN_BASELINE,
        Relation.LAYOUT,
        Relation.PAIR,
    ]
    words = ["cache", "engine", "split", "golden drift", "layout", "split"]
    for length in range(2, len(way) + 1):
        for failing in itertools.combinations(way, length):
            first = min(map(way.index, failing))
            assert cause.of_judgements(row_of(), judgements(failing)) == words[first]


def test_a_picture_of_another_size_was_cut_or_gathered_wrongly() -> None:
    resized = row_of("sizes differ: image should be 1 of 64x64 px, is 1 of 64x48 px")
    assert cause.of_judgements(resized, judgements([Relation.EXCHANGE, Relation.PAIR])) == "cut/gather"
    broken = row_of("the candidate's latents hold NaN or infinity")
    assert cause.of_judgements(broken, judgements([Relation.EXCHANGE])) == "split"
