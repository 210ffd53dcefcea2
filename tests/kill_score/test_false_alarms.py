"""Healthy rows at random, and the share of them that fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.kill_score import false_alarms
from harness.kill_score.healthy import Setting, healthy_rows
from harness.session import steps
from harness.types import Outcome, Row, Verdict


def test_more_rows_of_one_seed_begin_with_the_same_and_of_another_do_not() -> None:
    few, many = healthy_rows(10, Setting()), healthy_rows(40, Setting())
    assert many.pairs[:10] == few.pairs
    assert many.cases[: len(few.cases)] == few.cases
    assert healthy_rows(10, Setting(seed=1)).cases != few.cases
    assert {case.dtype for case in many.cases} == {"float32", "bfloat16"}
    assert all(variant.degree > 1 for variant in many.variants)
    assert {variant.degree for variant in healthy_rows(40, Setting(max_ranks=2)).variants} == {2}


def test_the_interval_is_that_of_the_count(bench: Any) -> None:
    sound = steps.conclude(bench.drawn(golden="off"))
    row = sound.rows[0]
    rows = [judged(row, Outcome.FAIL if number < 2 else Outcome.PASS) for number in range(100)]
    (rate,) = false_alarms.rates(replace(sound, rows=tuple(rows)))
    assert (rate.rows, len(rate.failed)) == (100, 2)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.0024, 0.0704)
    assert 0.97 < rate.per_run(50) < 0.98
    (none,) = false_alarms.rates(replace(sound, rows=tuple(rows[2:])))
    assert (none.low, round(none.high, 4)) == (0.0, 0.0369)


def judged(row: Row, outcome: Outcome) -> Row:
    return replace(row, verdict=Verdict(outcome, "said"))
