"""Verdicts: figures held to bounds; a pure function of a row, its runs and its bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.diagnose import cause, inside, noise_floor, sentence
from harness.diagnose.calibration import Calibration
from harness.diagnose.noise_floor import Floor
from harness.judging import engaged, own_arithmetic
from harness.planning.graph import DRAWS
from harness.types import Bound, Comparison, Judgement, Outcome, Relation, Row, Run, Verdict

MARGIN_DB = 1.0
"""Subtracted from an approved figure. Another CPU moves a figure of tens of decibels in its third decimal only."""

HELD_TO_FLOOR = (Relation.EXCHANGE, Relation.CONTROL, Relation.REPEAT, Relation.GOLDEN_BASELINE)
"""Relations whose two sides compute the same mathematics."""

OF_OWN_ARITHMETIC = (Relation.EXCHANGE, Relation.CONTROL, Relation.PADDED_CONTROL, Relation.OWN_EXCHANGE)
"""Relations that are judged otherwise where an engine's arithmetic is its own."""

SHOWN = {
    Relation.EXCHANGE: "shown, not judged: the engine computes otherwise than the replay; own-exchange is judged",
    Relation.OWN_EXCHANGE: "shown, not judged: the control reaches the noise floor, so exchange is judged",
}

NARROWED = "its latents hold no more than bfloat16 can, and those of its reference do"

Approved = Mapping[str, float | None]
"""Latents PSNR in dB approved for one variant, by relation (``pair``, ``layout``); ``None`` means exact."""


def judge(
    row: Row,
    runs: Mapping[str, Run],
    declared: Iterable[tuple[Relation, Bound]] = (),
    approved: Approved | None = None,
    golden_missing: bool = False,
    mixed: str = "",
    calibration: Calibration | None = None,
) -> Verdict:
    """Judge a row whose comparisons are made.

    Parameters
    ----------
    row
        The row with its comparisons.
    runs
        The runs it names, by digest.
    declared
        Bounds declared in the matrix.
    approved
        Figures approved with the golden for this row's variant, if there are any.
    golden_missing
        Whether a golden is required and there is none.
    mixed
        Difference between the machines that drew the row's runs; not empty makes the row an error.
    calibration
        Scatter of healthy rows on this platform, where it is known.
    """
    unjudged = _unjudged(row, runs, mixed)
    if unjudged is not None:
        return unjudged
    floor = noise_floor.of(row, calibration)
    judgements = tuple(
        judgement
        for comparison in row.comparisons
        for judgement in _judge_one(comparison, row, tuple(declared), approved or {}, floor)
    )
    if row.own:
        judgements = (*judgements, *own_arithmetic.beyond_control(row, judgements))
    outcome = Outcome.PASS
    if golden_missing:
        outcome = Outcome.NO_GOLDEN
    if any(judgement.ok is False for judgement in judgements):
        outcome = Outcome.FAIL
    if (idle := engaged.problem(row, runs)) is not None:
        return Verdict(Outcome.FAIL, idle, cause="not engaged", judgements=judgements, evidence=(idle,))
    suspicious = outcome == Outcome.PASS and bool(noise_floor.suspicious(judgements))
    if suspicious and (contradiction := inside.contradiction(row.explanation)) is not None:
        outcome, suspicious = Outcome.FAIL, False
        judgements = (*judgements, Judgement(contradiction.relation, False, contradiction.sentence))
    found = cause.find(row, judgements, runs)
    return Verdict(
        outcome,
        sentence.of_row(row, outcome, judgements) + found.headline + (sentence.of_suspicion(row) if suspicious else ""),
        cause=found.cause,
        judgements=judgements,
        evidence=found.evidence,
        suspicious=suspicious,
    )


def _unjudged(row: Row, runs: Mapping[str, Run], mixed: str) -> Verdict | None:
    """Return the verdict of a row whose figures are missing or meaningless; ``None`` for any other row."""
    if row.skip is not None:
        return Verdict(Outcome.SKIP, row.skip)
    failed = _failed_run(row, runs)
    if failed is not None:
        return failed
    if mixed:
        return Verdict(
            Outcome.ERROR,
            f"Its runs are of different machines ({mixed}) and cannot be compared; draw the case anew in a run of its "
            f"own: sp-harness run MATRIX --case {row.case.name}",
            cause="environment",
            infrastructure=True,
        )
    if row.variant.cache != "none" and not any(map(any, runs[row.runs["candidate"]].cache_decisions)):
        return Verdict(
            Outcome.ERROR,
            "The cache never served a step, so this row says nothing about it; "
            "raise cache_threshold or set cache_mask.",
            cause="cache",
        )
    return None


def _failed_run(row: Row, runs: Mapping[str, Run]) -> Verdict | None:
    """Judge a row of which a run has no picture: the candidate's own failure is named first; else ``None``."""
    for role in ("candidate", "control", "padded", "baseline", "replay", *DRAWS, "repeat"):
        if role not in row.runs:
            continue
        run = runs.get(row.runs[role])
        if run is None:
            return Verdict(Outcome.SKIP, f"not run: the {role} was not reached")
        if run.failure is not None:
            return Verdict(
                Outcome.TIMEOUT if run.outcome == "timeout" else Outcome.ERROR,
                f"the {role} has no picture: {run.failure.message}",
                cause=cause.of_failure(run.failure),
                infrastructure=run.failure.kind.infrastructure,
                evidence=cause.evidence_of_failure(run.failure),
            )
    return None


def _judge_one(
    comparison: Comparison,
    row: Row,
    declared: Sequence[tuple[Relation, Bound]],
    approved: Approved,
    floor: Floor | None,
) -> Iterator[Judgement]:
    relation = comparison.relation
    if comparison.problem:
        yield Judgement(relation, False, comparison.problem)
        return
    if relation == Relation.CACHE:
        yield Judgement(relation, True, f"{comparison.note}, decided alike on every rank and on one device")
        return
    if relation == Relation.FLOOR:
        return
    bounds = [bound for wanted, bound in declared if wanted == relation]
    held_to_floor = relation in HELD_TO_FLOOR
    if row.own and relation in OF_OWN_ARITHMETIC:
        others = own_arithmetic.bounds(row, comparison, floor)
        held_to_floor = others is None or floor is None
        bounds += others or []
    else:
        bounds += _approved_bounds(relation, approved, floor)
        if comparison.narrowed and relation in (Relation.EXCHANGE, Relation.CONTROL):
            yield Judgement(relation, False, NARROWED)
    if held_to_floor and floor is not None:
        yield from floor.judge(comparison)
    elif held_to_floor and not bounds and not comparison.exact:
        yield Judgement(relation, False, "there is no noise floor to hold it to")
    elif not bounds:
        yield Judgement(relation, None, SHOWN.get(relation, "shown, not judged: nothing is approved for this variant"))
    yield from _held(comparison, bounds)


def _held(comparison: Comparison, bounds: Sequence[Bound]) -> Iterator[Judgement]:
    """Hold a comparison to bounds of single figures."""
    for bound in bounds:
        ok = own_arithmetic.holds(comparison, bound)
        if ok is None:
            continue  # one side lacks this output, such as a golden that keeps latents only
        figure = comparison.figure(bound.metric, bound.domain)
        if figure is None or figure.value is None:
            unknown = f"{bound.metric} of {bound.domain} could not be measured"
            yield Judgement(comparison.relation, ok, "equal to the last bit" if ok else unknown, bound)
            continue
        text = f"{figure.value:.4g} {figure.unit} of {bound.domain}, asked for {bound}"
        yield Judgement(comparison.relation, ok, text, bound, figure.value)


def _approved_bounds(relation: Relation, approved: Approved, floor: Floor | None) -> list[Bound]:
    """List the bounds of figures that were approved (``docs/words.md`` gives the reasons)."""
    # A candidate is as far from the golden as from the baseline, which the golden once was.
    name = "pair" if relation == Relation.GOLDEN_CANDIDATE else relation.value
    if relation in HELD_TO_FLOOR or name not in approved:
        return []
    figure, lowest = approved[name], floor.latents_db() if floor else None
    # An approved figure at the floor is noise, which may move: the floor itself is the bound then.
    if figure is None or (lowest is not None and figure - MARGIN_DB > lowest.value):
        return [lowest] if lowest else []
    return [Bound("psnr", "latents", round(figure - MARGIN_DB, 2), "dB", "approved", MARGIN_DB)]
