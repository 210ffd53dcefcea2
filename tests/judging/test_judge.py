"""Figures to a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.diagnose import noise_floor
from harness.judging.judge import MARGIN_DB, judge
from harness.judging.measure import compare_decisions
from harness.planning.cut import choose_axis
from harness.types import (
    Bound,
    Case,
    Comparison,
    Domain,
    Failure,
    FailureKind,
    Figure,
    Outcome,
    Relation,
    Row,
    Run,
    RunSpec,
    Size,
    Variant,
    Verdict,
)

FLOOR = 100.0
"""What HEALTHY's measured noise floor of 110 dB comes to, less its margin."""
BASIS = f"{noise_floor.MARGIN_DB:g} dB over the median of 1 draws"
FLOOR_BOUND = Bound("psnr", "latents", FLOOR, "dB", "floor", noise_floor.MARGIN_DB, basis=BASIS)
PICTURE_DB, TILE_DB = 80.0, 75.0
"""Of the draw's picture, and of its worst tile."""

CASE = Case("144x144", "fake", Size(144, 144), ("x",))
VARIANT = Variant("fake", 2)
CHOICE = choose_axis(CASE.size, 2)
ROLES = ("baseline", "replay", "control", "candidate")
SIDES = {
    Relation.EXCHANGE: ("replay", "candidate"),
    Relation.CONTROL: ("baseline", "control"),
    Relation.LAYOUT: ("baseline", "replay"),
    Relation.PAIR: ("baseline", "candidate"),
    Relation.FLOOR: ("baseline", "reordered"),
    Relation.REPEAT: ("baseline", "repeat"),
    Relation.GOLDEN_BASELINE: ("golden", "baseline"),
    Relation.GOLDEN_CANDIDATE: ("golden", "candidate"),
}


def figure(value: float | None, metric: str = "psnr", domain: Domain = "latents") -> Figure:
    return Figure(metric, "", domain, value, "dB" if metric == "psnr" else "of 255")


def edge(relation: Relation, db: float | None = None, picture: float = PICTURE_DB, tile: float = TILE_DB) -> Comparison:
    """A comparison with these PSNR of latents, picture, and worst tile; exact without decibels."""
    first, second = SIDES[relation]
    if db is None:
        return Comparison(relation, first, second, exact_image=True, exact_latents=True)
    figures = (figure(db), figure(picture, "psnr", "image"), figure(tile, "worst-tile", "image"))
    figures = (*figures, figure(90.0, "max-abs", "image"))
    return Comparison(relation, first, second, exact_image=False, exact_latents=False, figures=figures)


HEALTHY = (
    edge(Relation.EXCHANGE, 140.0),
    edge(Relation.CONTROL, 145.0),
    edge(Relation.LAYOUT, 33.8, 30.0, 25.0),
    edge(Relation.PAIR, 33.8, 30.0, 25.0),
    edge(Relation.FLOOR, FLOOR + noise_floor.MARGIN_DB),
)


def row_of(*comparisons: Comparison, case: Case = CASE) -> Row:
    runs = {role: role for role in ROLES}
    return Row(case, VARIANT, CHOICE, CHOICE.chosen, runs=runs, comparisons=comparisons)


def run_of(failure: Failure | None = None) -> Run:
    outcome: Any = "ok" if failure is None else "timeout" if failure.kind is FailureKind.HUNG else "error"
    return Run(RunSpec(CASE, "fake", "", "w", "s"), outcome, failure=failure)


DRAWN = {role: run_of() for role in ROLES}


def judged(*comparisons: Comparison, case: Case = CASE, **options: Any) -> Verdict:
    return judge(row_of(*comparisons, case=case), DRAWN, **options)


def with_edge(*changed: Comparison) -> tuple[Comparison, ...]:
    own = {comparison.relation: comparison for comparison in (*HEALTHY, *changed)}
    return tuple(own.values())


def oks(verdict: Verdict, relation: Relation) -> list[bool | None]:
    return [judgement.ok for judgement in verdict.judgements if judgement.relation == relation]


class TestJudge:
    def test_healthy(self) -> None:
        verdict = judged(*HEALTHY)
        assert (verdict.outcome, verdict.cause, verdict.infrastructure) == (Outcome.PASS, None, False)
        assert oks(verdict, Relation.EXCHANGE) == oks(verdict, Relation.CONTROL) == [True, True, True]

    def test_what_nothing_is_approved_for_is_only_shown(self) -> None:
        verdict = judged(*HEALTHY, approved=None)
        assert oks(verdict, Relation.LAYOUT) == oks(verdict, Relation.PAIR) == [None]

    @pytest.mark.parametrize(
        ("relation", "cause"),
        [
            (Relation.EXCHANGE, "split"),
            (Relation.CONTROL, "engine"),
            (Relation.GOLDEN_BASELINE, "golden drift"),
            (Relation.REPEAT, "non-determinism"),
        ],
    )
    def test_held_to_the_floor(self, relation: Relation, cause: str) -> None:
        assert judged(*with_edge(edge(relation, FLOOR))).outcome == Outcome.PASS
        verdict = judged(*with_edge(edge(relation, FLOOR - 0.1)))
        assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, cause)
        (failing,) = [judgement for judgement in verdict.judgements if judgement.ok is False]
        assert failing.bound == FLOOR_BOUND
        assert failing.value == FLOOR - 0.1
        assert failing.sentence == "99.9 dB of latents, asked for at least 100 dB (floor)"

    @pytest.mark.parametrize("relation", [Relation.EXCHANGE, Relation.CONTROL, Relation.GOLDEN_BASELINE])
    @pytest.mark.parametrize(("picture", "tile", "metric"), [(69.0, 75.0, "psnr"), (75.0, 64.0, "worst-tile")])
    def test_a_picture_is_held_as_a_whole_and_in_its_worst_tile(
        self, relation: Relation, picture: float, tile: float, metric: str
    ) -> None:
        assert judged(*with_edge(edge(relation, 120.0, 71.0, 66.0))).outcome == Outcome.PASS
        verdict = judged(*with_edge(edge(relation, 120.0, picture, tile)))
        assert verdict.outcome == Outcome.FAIL
        failing = [judgement.bound for judgement in verdict.judgements if judgement.ok is False]
        assert [(bound.metric, bound.domain) for bound in failing if bound] == [(metric, "image")]

    def test_exact_keeps_every_bound(self) -> None:
        comparisons = tuple(edge(relation) for relation in SIDES)
        declared = [(relation, Bound("psnr", "latents", 1e9, "dB", "declared")) for relation in SIDES]
        approved = {"pair": None, "layout": None}
        verdict = judged(*comparisons, declared=declared, approved=approved)
        assert verdict.outcome == Outcome.PASS
        assert {judgement.sentence for judgement in verdict.judgements} == {"equal to the last bit"}

    def test_the_same_run_keeps_every_bound(self) -> None:
        same = Comparison(Relation.LAYOUT, "baseline", "baseline", same_run=True)
        assert oks(judged(*with_edge(same), approved={"layout": 30.0}), Relation.LAYOUT) == [True]

    def test_equal_latents_excuse_no_picture(self) -> None:
        half = replace(edge(Relation.EXCHANGE, 0.0, 30.0, 25.0), exact_latents=True)
        assert oks(judged(*with_edge(half)), Relation.EXCHANGE) == [True, False, False]

    def test_a_problem_fails_whatever_is_approved(self) -> None:
        broken = Comparison(Relation.EXCHANGE, "replay", "candidate", problem="sizes differ: image should be ...")
        verdict = judged(*with_edge(broken))
        assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, "cut/gather")
        assert oks(verdict, Relation.EXCHANGE) == [False]

    def test_an_engine_wrong_on_one_device_is_named(self) -> None:
        verdict = judged(*with_edge(edge(Relation.CONTROL, 61.0), edge(Relation.EXCHANGE, 61.0)))
        assert verdict.cause == "engine"
        assert verdict.sentence.startswith("fake is wrong on one device already: control 61 dB of latents")

    @pytest.mark.parametrize(
        "figures", [(), (figure(None), figure(80.0, "psnr", "image"))], ids=["not there", "without a value"]
    )
    def test_a_figure_that_cannot_be_measured_fails(self, figures: tuple[Figure, ...]) -> None:
        verdict = judged(*with_edge(replace(edge(Relation.EXCHANGE, 1.0), figures=figures)))
        assert verdict.outcome == Outcome.FAIL
        assert "psnr of latents could not be measured" in [j.sentence for j in verdict.judgements]

    def test_a_golden_without_pictures_is_held_by_its_latents_alone(self) -> None:
        large = replace(edge(Relation.GOLDEN_BASELINE, 120.0), exact_image=None, figures=(figure(120.0),))
        assert oks(judged(*with_edge(large)), Relation.GOLDEN_BASELINE) == [True]

    def test_without_a_floor_nothing_can_be_held_to_it(self) -> None:
        without = [comparison for comparison in HEALTHY if comparison.relation != Relation.FLOOR]
        verdict = judged(*without)
        assert verdict.outcome == Outcome.FAIL
        assert "there is no noise floor to hold it to" in verdict.sentence

    def test_equality_is_never_asked_for(self) -> None:
        """A draw that is equal by luck is taken to differ by one rounding of the dtype."""
        equal = edge(Relation.FLOOR)
        assert oks(judged(*with_edge(equal, edge(Relation.EXCHANGE))), Relation.EXCHANGE) == [True, True, True]
        near = [edge(relation, 140.0, 90.0, 80.0) for relation in (Relation.EXCHANGE, Relation.CONTROL)]
        assert judged(*with_edge(equal, *near)).outcome == Outcome.PASS
        assert judged(*with_edge(equal, *near, edge(Relation.EXCHANGE, 130.0, 90.0, 80.0))).outcome == Outcome.FAIL
        coarse = replace(CASE, dtype="bfloat16")
        noisy = [edge(relation, 60.0, 55.0, 50.0) for relation in (Relation.EXCHANGE, Relation.CONTROL)]
        assert judged(*with_edge(equal, *noisy), case=coarse).outcome == Outcome.PASS
        assert judged(*with_edge(equal, edge(Relation.EXCHANGE, 30.0)), case=coarse).outcome == Outcome.FAIL

    def test_the_floor_follows_what_was_measured(self) -> None:
        """A coarse type has a low floor, and its pictures may differ by more."""
        coarse = edge(Relation.FLOOR, 60.0, 55.0, 50.0)
        assert judged(*with_edge(coarse, edge(Relation.EXCHANGE, 55.0, 46.0, 41.0))).outcome == Outcome.PASS
        assert judged(*with_edge(coarse, edge(Relation.EXCHANGE, 49.0, 46.0, 41.0))).outcome == Outcome.FAIL
        assert judged(*with_edge(coarse, edge(Relation.EXCHANGE, 55.0, 44.0, 41.0))).outcome == Outcome.FAIL

    def test_of_several_draws_the_median_counts(self) -> None:
        draws = [replace(edge(Relation.FLOOR, db), candidate=f"{db}") for db in (200.0, 90.0, 60.0)]
        rest = [comparison for comparison in HEALTHY if comparison.relation not in (Relation.FLOOR, Relation.EXCHANGE)]
        assert judged(*rest, *draws, edge(Relation.EXCHANGE, 80.0)).outcome == Outcome.PASS
        assert judged(*rest, *draws, edge(Relation.EXCHANGE, 79.0)).outcome == Outcome.FAIL

    @pytest.mark.parametrize("relation", [Relation.EXCHANGE, Relation.CONTROL])
    def test_latents_of_half_precision_fail_at_any_distance(self, relation: Relation) -> None:
        verdict = judged(*with_edge(replace(edge(relation, 120.0), narrowed=True)))
        assert verdict.outcome == Outcome.FAIL
        assert "its latents hold no more than bfloat16 can" in verdict.sentence
        assert verdict.cause == "noise"


class TestApproved:
    @pytest.mark.parametrize("name", ["pair", "layout"])
    @pytest.mark.parametrize(
        ("approved", "measured", "ok"),
        [
            (33.8, 33.8, True),
            (33.8, 60.0, True),  # better is never worse
            (33.8, 33.8 - MARGIN_DB + 0.01, True),
            (33.8, 33.8 - MARGIN_DB - 0.01, False),
            (140.0, FLOOR, True),  # noise may move, down to the floor
            (140.0, FLOOR - 0.1, False),
            (FLOOR + MARGIN_DB + 0.1, FLOOR, True),
            (FLOOR + MARGIN_DB - 0.1, FLOOR - 0.05, True),
            (FLOOR + MARGIN_DB - 0.1, FLOOR - 0.2, False),
            (None, FLOOR, True),  # approved as exact
            (None, 33.8, False),
        ],
    )
    def test_only_worse_fails(self, name: str, approved: float | None, measured: float, ok: bool) -> None:
        relation = Relation(name)
        verdict = judged(*with_edge(edge(relation, measured)), approved={name: approved})
        assert oks(verdict, relation) == [ok]
        assert verdict.outcome == (Outcome.PASS if ok else Outcome.FAIL)
        assert verdict.cause == (None if ok else {"pair": "split", "layout": "layout"}[name])

    def test_the_bound_says_where_it_comes_from(self) -> None:
        verdict = judged(*HEALTHY, approved={"pair": 33.8, "layout": 140.0})
        bounds = {judgement.relation: judgement.bound for judgement in verdict.judgements}
        assert bounds[Relation.PAIR] == Bound("psnr", "latents", 32.8, "dB", "approved", MARGIN_DB)
        assert bounds[Relation.LAYOUT] == FLOOR_BOUND

    def test_a_candidate_is_held_to_the_golden_as_to_the_baseline(self) -> None:
        near, far = edge(Relation.GOLDEN_CANDIDATE, 33.8, 30.0, 25.0), edge(Relation.GOLDEN_CANDIDATE, 20.0, 30.0, 25.0)
        assert oks(judged(*with_edge(near), approved={"pair": 33.8}), Relation.GOLDEN_CANDIDATE) == [True]
        verdict = judged(*with_edge(far), approved={"pair": 33.8})
        assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, "golden drift")
        assert oks(judged(*with_edge(far), approved={}), Relation.GOLDEN_CANDIDATE) == [None]

    def test_without_a_floor_the_approved_figure_holds(self) -> None:
        case = replace(CASE, dtype="bfloat16")
        verdict = judged(*with_edge(edge(Relation.PAIR, 25.0)), case=case, approved={"pair": 140.0})
        assert oks(verdict, Relation.PAIR) == [False]


class TestDeclared:
    @pytest.mark.parametrize(
        ("bound", "ok"),
        [
            (Bound("psnr", "latents", 33.0, "dB", "declared"), True),
            (Bound("psnr", "latents", 34.0, "dB", "declared"), False),
            (Bound("max-abs", "image", 90.0, "of 255", "declared", direction="at most"), True),
            (Bound("max-abs", "image", 89.0, "of 255", "declared", direction="at most"), False),
        ],
        ids=str,
    )
    def test_holds_in_both_directions(self, bound: Bound, ok: bool) -> None:
        verdict = judged(*HEALTHY, declared=[(Relation.PAIR, bound)])
        assert oks(verdict, Relation.PAIR) == [ok]
        assert verdict.outcome == (Outcome.PASS if ok else Outcome.FAIL)

    def test_speaks_of_one_relation_alone(self) -> None:
        bound = Bound("psnr", "latents", 130.0, "dB", "declared")
        assert judged(*HEALTHY, declared=[(Relation.EXCHANGE, bound)]).outcome == Outcome.PASS
        assert judged(*HEALTHY, declared=[(Relation.PAIR, bound)]).outcome == Outcome.FAIL

    def test_stands_beside_the_floor_and_does_not_replace_it(self) -> None:
        low = Bound("psnr", "latents", 10.0, "dB", "declared")
        verdict = judged(*with_edge(edge(Relation.EXCHANGE, 61.0)), declared=iter([(Relation.EXCHANGE, low)]))
        assert oks(verdict, Relation.EXCHANGE) == [False, True, True, True]
        assert verdict.outcome == Outcome.FAIL

    def test_a_metric_that_was_not_measured_fails(self) -> None:
        bound = Bound("ssim", "image", 0.9, "1", "declared")
        assert oks(judged(*HEALTHY, declared=[(Relation.PAIR, bound)]), Relation.PAIR) == [False]


class TestGoldenMissing:
    def test_is_an_outcome_of_its_own(self) -> None:
        verdict = judged(*HEALTHY, golden_missing=True)
        assert (verdict.outcome, verdict.cause) == (Outcome.NO_GOLDEN, None)
        assert "No golden is approved" in verdict.sentence

    def test_a_failure_is_worse(self) -> None:
        assert judged(*with_edge(edge(Relation.EXCHANGE, 21.0)), golden_missing=True).outcome == Outcome.FAIL


class TestRowsWithoutAPicture:
    def test_skipped(self) -> None:
        verdict = judge(Row(CASE, VARIANT, skip="no such thing"), {})
        assert verdict == Verdict(Outcome.SKIP, "no such thing")

    def test_a_skip_needs_no_golden(self) -> None:
        assert judge(Row(CASE, VARIANT, skip="x"), {}, golden_missing=True).outcome == Outcome.SKIP

    @pytest.mark.parametrize("role", ROLES)
    def test_not_reached(self, role: str) -> None:
        verdict = judge(row_of(), {name: run for name, run in DRAWN.items() if name != role})
        assert verdict == Verdict(Outcome.SKIP, f"not run: the {role} was not reached")

    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize(
        ("kind", "outcome", "cause", "infrastructure"),
        [
            (FailureKind.RAISED, Outcome.ERROR, "crash", False),
            (FailureKind.HUNG, Outcome.TIMEOUT, "hang", False),
            (FailureKind.KILLED, Outcome.ERROR, "environment", True),
            (FailureKind.OUT_OF_MEMORY, Outcome.ERROR, "environment", True),
            (FailureKind.DISK_FULL, Outcome.ERROR, "environment", True),
            (FailureKind.LAUNCH, Outcome.ERROR, "environment", True),
        ],
    )
    def test_failed(self, role: str, kind: FailureKind, outcome: Outcome, cause: str, infrastructure: bool) -> None:
        verdict = judge(row_of(), {**DRAWN, role: run_of(Failure(kind, "it broke"))}, golden_missing=True)
        sentence = f"the {role} has no picture: it broke"
        assert verdict == Verdict(outcome, sentence, cause, infrastructure, evidence=("it broke",))

    def test_the_candidates_own_failure_is_told_first(self) -> None:
        runs = {role: run_of(Failure(FailureKind.RAISED, role)) for role in ROLES}
        assert judge(row_of(), runs).sentence == "the candidate has no picture: candidate"


class TestCacheDecisions:
    @staticmethod
    def run(*ranks: str) -> Run:
        return replace(run_of(), cache_decisions=tuple(tuple(step == "C" for step in rank) for rank in ranks))

    def test_alike_on_all_ranks_and_as_the_reference(self) -> None:
        comparison = compare_decisions(self.run("..C."), self.run("..C.", "..C."))
        assert (comparison.relation, comparison.problem) == (Relation.CACHE, None)

    @pytest.mark.parametrize(
        ("reference", "candidate", "problem"),
        [
            (["..C."], ["..C.", "...."], "rank 1 decided ...., rank 0 ..C."),
            (["..C."], [".C..", ".C.."], "the candidate decided .C.., its reference ..C."),
            (["..C."], ["....", "...."], "the candidate decided ...., its reference ..C."),
            (["..C."], [], "the candidate decided nothing, its reference ..C."),
            ([], ["..C."], "the candidate decided ..C., its reference nothing"),
        ],
    )
    def test_otherwise(self, reference: list[str], candidate: list[str], problem: str) -> None:
        comparison = compare_decisions(self.run(*reference), self.run(*candidate))
        assert comparison.problem == problem
        row = replace(row_of(comparison, *HEALTHY), variant=replace(VARIANT, cache="cache-dit"))
        served = {**DRAWN, "candidate": self.run("C")}
        verdict = judge(row, served)
        assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, "cache")

    def test_a_cache_that_never_served_tells_nothing(self) -> None:
        row = replace(row_of(*HEALTHY), variant=replace(VARIANT, cache="cache-dit"))
        for idle in (self.run("....", "...."), self.run()):
            verdict = judge(row, {**DRAWN, "candidate": idle})
            assert (verdict.outcome, verdict.cause) == (Outcome.ERROR, "cache")
        assert judge(row, {**DRAWN, "candidate": self.run("..C.")}).outcome == Outcome.PASS
