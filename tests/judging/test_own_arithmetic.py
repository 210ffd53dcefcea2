"""Engines with arithmetic of their own: what their control and their split are held to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.diagnose import noise_floor
from harness.engines.fake import FakeEngine
from harness.judging.judge import judge
from harness.judging.own_arithmetic import with_unverified
from harness.session import steps
from harness.types import (
    Case,
    Comparison,
    Domain,
    Figure,
    Outcome,
    OwnArithmetic,
    Pads,
    Relation,
    Row,
    Run,
    RunSpec,
    Size,
    Variant,
    Verdict,
)

FLOOR_DB = 66.0
BOUND_DB = FLOOR_DB - noise_floor.MARGIN_DB
CASE = Case("144x144", "m", Size(144, 144), ("x",), dtype="bfloat16")
VARIANT = Variant("theirs", 2, axis="none")
DECLARED = OwnArithmetic(40.0)
ROLES = ("baseline", "replay", "control", "candidate")


def edge(relation: Relation, db: float | None, *figures: Figure, **more: Any) -> Comparison:
    """A comparison of latents of equal pictures; equal to the last bit without decibels."""
    found = () if db is None else (Figure("psnr", "", "latents", db, "dB"), *figures)
    return Comparison(relation, "a", "b", exact_image=True, exact_latents=db is None, figures=found, **more)


def row_of(pads: Pads | None = None, padded: bool = False, own: OwnArithmetic | None = DECLARED, **db: Any) -> Row:
    """A row by its decibels; relations are written with underscores."""
    relations = {"floor": FLOOR_DB, "exchange": None, "control": None, **db}
    edges = [
        found if isinstance(found, Comparison) else edge(Relation(name.replace("_", "-")), found)
        for name, found in relations.items()
    ]
    runs = {role: role for role in (*ROLES, *(("padded",) if padded else ()))}
    return Row(CASE, VARIANT, pads=pads, own=own, runs=runs, comparisons=tuple(edges))


def judged(row: Row) -> Verdict:
    spec = RunSpec(row.case, row.variant.engine, "", "w", "s")
    return judge(row, {role: Run(spec, "ok") for role in row.runs})


def failing(verdict: Verdict) -> set[str]:
    return {judgement.relation.value for judgement in verdict.judgements if judgement.ok is False}


def test_a_candidate_equal_to_its_control_passes_and_the_bound_of_the_control_is_named() -> None:
    verdict = judged(row_of(exchange=45.0, control=45.0, own_exchange=None))
    assert verdict.outcome == Outcome.PASS
    (control,) = [j for j in verdict.judgements if j.relation == Relation.CONTROL]
    assert (control.bound.source, control.bound.value) == ("declared", 40.0) if control.bound else None
    assert "asked for at least 40 dB (declared)" in verdict.sentence
    assert [j.ok for j in verdict.judgements if j.relation == Relation.EXCHANGE] == [None]
    assert "pad" not in verdict.sentence


@pytest.mark.parametrize("own", [None, OwnArithmetic()])
def test_without_a_declared_bound_it_fails(own: OwnArithmetic | None) -> None:
    verdict = judged(row_of(own=own, exchange=45.0, control=45.0, own_exchange=None))
    assert (verdict.outcome, "control" in failing(verdict)) == (Outcome.FAIL, True)


def test_a_declared_bound_never_holds_in_float32() -> None:
    row = row_of(exchange=45.0, control=45.0, own_exchange=None)
    verdict = judged(replace(row, case=replace(CASE, dtype="float32")))
    assert (verdict.outcome, verdict.cause, failing(verdict)) == (Outcome.FAIL, "engine", {"control"})


def test_a_wrong_split_cannot_hide_behind_the_bound_of_the_control() -> None:
    verdict = judged(row_of(exchange=44.0, control=45.0, own_exchange=BOUND_DB - 0.1))
    assert (verdict.outcome, verdict.cause, failing(verdict)) == (Outcome.FAIL, "split", {"own-exchange"})
    assert judged(row_of(exchange=44.0, control=45.0, own_exchange=BOUND_DB)).outcome == Outcome.PASS


def test_a_control_at_the_floor_leaves_the_split_to_the_replay() -> None:
    assert judged(row_of(exchange=BOUND_DB, control=BOUND_DB, own_exchange=20.0)).outcome == Outcome.PASS
    verdict = judged(row_of(exchange=BOUND_DB - 0.1, control=BOUND_DB, own_exchange=None))
    assert (verdict.outcome, failing(verdict)) == (Outcome.FAIL, {"exchange"})


def test_pads_wrong_alike_in_split_and_padded_control_are_seen() -> None:
    padded: dict[str, Any] = {"pads": Pads(47, 15), "padded": True, "exchange": 30.0, "control": 45.0}
    assert judged(row_of(**padded, own_exchange=None, padded_control=41.0)).outcome == Outcome.PASS
    verdict = judged(row_of(**padded, own_exchange=None, padded_control=30.0))
    assert (verdict.outcome, verdict.cause, failing(verdict)) == (Outcome.FAIL, "pads", {"padded-control"})


def test_an_engine_that_cannot_be_told_its_pads_is_held_to_what_its_control_shows() -> None:
    def row(split: float, tile: float, steps: tuple[float, ...] = (70.0, 45.0)) -> Row:
        def with_tile(relation: Relation, db: float, tile: float, steps: tuple[float, ...]) -> Comparison:
            domain: Domain = "image"
            found = edge(relation, db, Figure("worst-tile", "", domain, tile, "dB"), steps_db=steps)
            return replace(found, exact_image=False)

        edges = (
            with_tile(Relation.CONTROL, 45.0, 40.0, (70.0, 45.0)),
            with_tile(Relation.EXCHANGE, split, tile, steps),
        )
        return row_of(pads=Pads(47, 15), control=edges[0], exchange=edges[1])

    passing = judged(row(44.1, 39.1))
    assert passing.outcome == Outcome.PASS
    assert failing(judged(row(43.9, 39.1))) == failing(judged(row(44.1, 38.9))) == {"exchange"}
    late = judged(row(44.1, 39.1, steps=(60.0, 44.5)))
    assert (late.outcome, failing(late)) == (Outcome.FAIL, {"exchange"})
    assert "after step 1 the split is 60.0 dB from the replay, where the control is 70.0 dB" in late.sentence

    alone = replace(row(44.1, 39.1), verdict=passing)
    exact = replace(alone, case=replace(CASE, name="other", dtype="float32"), verdict=Verdict(Outcome.PASS, "fine."))
    said = [each.verdict.sentence for each in with_unverified([alone]) if each.verdict]
    assert said[0].endswith("This verifies nothing by itself: no float32 row of the same case passes in this run.")
    beside = with_unverified([alone, exact])
    assert [each.verdict for each in beside] == [passing, exact.verdict]


def test_without_a_noise_floor_nothing_of_it_passes() -> None:
    broken = Comparison(Relation.FLOOR, "a", "b", problem="sizes differ")
    row = row_of(exchange=45.0, control=45.0, own_exchange=45.0)
    edges = (broken, *(each for each in row.comparisons if each.relation != Relation.FLOOR))
    assert {"own-exchange", "exchange"} <= failing(judged(replace(row, own=OwnArithmetic(), comparisons=edges)))


def test_the_comparisons_are_made_where_an_engine_declares_it(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake engine takes no pads on one device, though it is made to say so: that is seen."""
    monkeypatch.setattr(FakeEngine, "own_arithmetic", True)
    monkeypatch.setattr(FakeEngine, "takes_image_pads", True)
    rows = {row.name: row for row in steps.conclude(bench.drawn(golden="off")).rows}
    plain, padded = rows["128x128/fake-u2-h"], rows["144x144/fake-u2-h"]
    sides = {name: row.comparison(Relation.OWN_EXCHANGE) for name, row in (("plain", plain), ("padded", padded))}
    assert sides["plain"] is not None
    assert sides["padded"] is not None
    assert sides["plain"].reference == plain.runs["control"]
    assert sides["padded"].reference == padded.runs["padded"]
    assert plain.comparison(Relation.PADDED_CONTROL) is None
    assert plain.verdict is not None
    assert padded.verdict is not None
    assert plain.verdict.outcome == Outcome.PASS
    assert (padded.verdict.outcome, padded.verdict.cause) == (Outcome.FAIL, "pads")
