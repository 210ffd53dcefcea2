"""Two pure functions: :func:`measure` turns two samples into figures, :func:`judge` figures into a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.diagnose import cause, noise_floor, sentence
from harness.plugins import Context, Metric
from harness.types import Bound, Comparison, Domain, Figure, Judgement, Outcome, Relation, Row, Run, Verdict

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]

MARGIN_DB = 1.0
"""Taken off an approved figure. Another CPU moves a figure of tens of decibels in its third decimal only."""

HELD_TO_FLOOR = (Relation.EXCHANGE, Relation.CONTROL, Relation.REPEAT, Relation.GOLDEN_BASELINE)
"""Relations whose two sides compute the same mathematics."""

FIRST_VALUES = 4096
"""Looked at first: pictures that are not equal mostly differ there already."""

JUDGED_METRICS = ("psnr", "max-abs")
"""Metrics that bounds speak of; measured whatever a matrix selects."""


@dataclass(frozen=True)
class Sample:
    """What a run or a golden shows: pictures ``H,W,3`` uint8, latents ``B,C,H,W`` float32.

    ``trajectory`` holds the latents after each step, ``T,B,C,H,W``. Any may be absent: large goldens keep
    their latents only.
    """

    key: str
    images: tuple[Array, ...] | None
    latents: Array | None
    trajectory: Array | None = None


def measure(
    relation: Relation, reference: Sample, candidate: Sample, metrics: Sequence[Metric], context: Context
) -> Comparison:
    """Compare two samples by every metric; for several pictures a figure is that of the worst.

    Sizes that differ and values that are not finite are problems of their own: nothing is resized or
    replaced to get a figure.
    """
    result = Comparison(relation, reference.key, candidate.key, same_run=reference.key == candidate.key)
    if result.same_run:
        return result
    problem = find_problem(reference, candidate)
    if problem:
        return replace(result, problem=problem)
    exact: dict[Domain, bool | None] = {"image": None, "latents": None}
    figures: list[Figure] = []
    for domain, left, right in _domains(reference, candidate):
        pairs = _unequal(left, right)
        exact[domain] = not pairs
        figures += _figures(metrics, domain, pairs, context)
    return replace(
        result,
        exact_image=exact["image"],
        exact_latents=exact["latents"],
        figures=tuple(figures),
        steps_db=_steps_db(reference, candidate, metrics, context),
    )


def find_problem(reference: Sample, candidate: Sample) -> str | None:
    """Say why two samples cannot be compared, or return ``None``."""
    if not any(_domains(reference, candidate)):
        return "nothing to compare: no pictures and no latents that both sides have"
    for domain, left, right in _domains(reference, candidate):
        shapes = [[array.shape for array in side] for side in (left, right)]
        if shapes[0] != shapes[1]:
            expected, found = (_size_text(domain, side) for side in shapes)
            return f"sizes differ: {domain} should be {expected}, is {found}"
        for name, side in (("reference", left), ("candidate", right)):
            if not all(array.dtype.kind in "ui" or np.isfinite(array).all() for array in side):
                return f"the {name}'s {domain} hold NaN or infinity"
    return None


def _size_text(domain: Domain, shapes: list[tuple[int, ...]]) -> str:
    if not shapes:
        return "absent"
    if domain == "image":
        height, width = shapes[0][:2]
        return f"{len(shapes)} of {width}x{height} px"
    channels, height, width = shapes[0]
    return f"{len(shapes)} of {width}x{height} cells, {channels} channels"


def _domains(reference: Sample, candidate: Sample) -> Iterator[tuple[Domain, Sequence[Array], Sequence[Array]]]:
    if reference.latents is not None and candidate.latents is not None:
        yield "latents", tuple(reference.latents), tuple(candidate.latents)
    left, right = reference.images, candidate.images
    if left is not None and right is not None and (left or right):
        yield "image", left, right


def _equal(first: Array, second: Array) -> bool:
    """Whether all values are equal; arrays that differ mostly do so at once, and are not read to their end."""
    start = slice(FIRST_VALUES)
    return np.array_equal(first.ravel()[start], second.ravel()[start]) and np.array_equal(first, second)


def _fixed(array: Array) -> Array:
    """The same array, for reading alone: a metric cannot spoil it for the next, and may keep what it made of it."""
    view = array.view()
    view.flags.writeable = False
    return view


def _unequal(left: Sequence[Array], right: Sequence[Array]) -> list[Pair]:
    return [(_fixed(a), _fixed(b)) for a, b in zip(left, right, strict=True) if not _equal(a, b)]


def _figures(metrics: Sequence[Metric], domain: Domain, pairs: Sequence[Pair], context: Context) -> list[Figure]:
    """The figures of pictures that are not equal: none where all of them are."""
    figures = []
    for metric in metrics if pairs else ():
        if domain in metric.domains:
            found = [metric.measure(*pair, domain, context) for pair in pairs]
            if measured := [figure for figure in found if figure is not None]:
                figures.append(_worst(measured, metric.higher_is_better))
    return figures


def _steps_db(
    reference: Sample, candidate: Sample, metrics: Sequence[Metric], context: Context
) -> tuple[float | None, ...]:
    """Latents PSNR after each step, where both sides recorded them."""
    psnr = [metric for metric in metrics if metric.name == "psnr"]
    left, right = reference.trajectory, candidate.trajectory
    if not psnr or left is None or right is None or left.shape != right.shape:
        return ()
    steps = (_figures(psnr, "latents", _unequal(a, b), context) for a, b in zip(left, right, strict=True))
    return tuple(figures[0].value if figures else None for figures in steps)


def _worst(figures: list[Figure], higher_is_better: bool) -> Figure:
    unknown = [figure for figure in figures if figure.value is None]
    if unknown:  # unequal, and no number says by how much: nothing is worse
        return unknown[0]
    choose = min if higher_is_better else max
    return choose(figures, key=lambda figure: figure.value or 0.0)


def compare_decisions(reference: Run, candidate: Run) -> Comparison:
    """Compare what a cache decided at each step: on all ranks alike, and as the reference decided.

    Where decisions differ, figures of the pictures say nothing about the split.
    """
    expected = reference.cache_decisions[0] if reference.cache_decisions else ()
    problem = None
    for rank, decisions in enumerate(candidate.cache_decisions):
        if decisions != candidate.cache_decisions[0]:
            problem = f"rank {rank} decided {_steps(decisions)}, rank 0 {_steps(candidate.cache_decisions[0])}"
    if problem is None and (candidate.cache_decisions or ((),))[0] != expected:
        found = (candidate.cache_decisions or ((),))[0]
        problem = f"the candidate decided {_steps(found)}, its reference {_steps(expected)}"
    served = max((sum(decisions) for decisions in candidate.cache_decisions), default=0)
    note = f"the cache served {served} of {candidate.spec.case.steps} steps"
    return Comparison(Relation.CACHE, reference.spec.digest, candidate.spec.digest, problem=problem, note=note)


def _steps(decisions: Sequence[bool]) -> str:
    """Decisions in a line: ``C`` served from the cache, ``.`` computed."""
    return "".join("C" if served else "." for served in decisions) or "nothing"


# ---------------------------------------------------------------- judging


Approved = Mapping[str, float | None]
"""Latents PSNR in dB approved for one variant, by relation (``pair``, ``layout``); ``None`` means exact."""


def judge(
    row: Row,
    runs: Mapping[str, Run],
    declared: Iterable[tuple[Relation, Bound]] = (),
    approved: Approved | None = None,
    golden_missing: bool = False,
    mixed: str = "",
) -> Verdict:
    """Come to the verdict of a row whose comparisons are made.

    Parameters
    ----------
    row
        The row with its comparisons.
    runs
        The runs it names, by digest.
    declared
        Bounds the matrix states.
    approved
        Figures approved with the golden for this row's variant, if there are any.
    golden_missing
        True where a golden is required and there is none.
    mixed
        How the machines that drew the row's runs differ, if they do: then its figures say nothing.
    """
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
    judgements = tuple(
        judgement
        for comparison in row.comparisons
        for judgement in _judge_one(comparison, row, tuple(declared), approved or {})
    )
    outcome = Outcome.PASS
    if golden_missing:
        outcome = Outcome.NO_GOLDEN
    if any(judgement.ok is False for judgement in judgements):
        outcome = Outcome.FAIL
    found = cause.find(row, judgements, runs)
    return Verdict(
        outcome,
        sentence.of_row(row, outcome, judgements) + found.headline,
        cause=found.cause,
        judgements=judgements,
        evidence=found.evidence,
    )


def _failed_run(row: Row, runs: Mapping[str, Run]) -> Verdict | None:
    """The verdict where a run has no picture: the candidate's own failure first, then whose it waits for."""
    for role in ("candidate", "control", "baseline", "replay", "reordered", "repeat"):
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
    comparison: Comparison, row: Row, declared: Sequence[tuple[Relation, Bound]], approved: Approved
) -> Iterator[Judgement]:
    relation = comparison.relation
    if comparison.problem:
        yield Judgement(relation, False, comparison.problem)
        return
    if relation == Relation.CACHE:
        yield Judgement(relation, True, f"{comparison.note}, decided alike on every rank and on one device")
        return
    bounds = [bound for wanted, bound in declared if wanted == relation]
    bounds += _own_bounds(relation, row, approved)
    if relation == Relation.FLOOR:
        return
    if not bounds and relation in HELD_TO_FLOOR and not comparison.exact:
        yield Judgement(relation, False, "there is no noise floor to hold it to")
    elif not bounds:
        yield Judgement(relation, None, "shown, not judged: nothing is approved for this variant")
    for bound in bounds:
        exact = comparison.exact_latents if bound.domain == "latents" else comparison.exact_image
        if exact or comparison.same_run:
            yield Judgement(relation, True, "equal to the last bit", bound)
            continue
        if exact is None:
            continue  # one side has no such output, as goldens that keep latents only
        figure = comparison.figure(bound.metric, bound.domain)
        if figure is None or figure.value is None:
            yield Judgement(relation, False, f"{bound.metric} of {bound.domain} could not be measured", bound)
            continue
        ok = bound.holds(figure.value)
        text = f"{figure.value:.4g} {figure.unit} of {bound.domain}, asked for {bound}"
        yield Judgement(relation, ok, text, bound, figure.value)


def _own_bounds(relation: Relation, row: Row, approved: Approved) -> list[Bound]:
    """Bounds that hold without being declared; see ``docs/words.md`` for the reasons."""
    floor = noise_floor.bounds(row.comparison(Relation.FLOOR))
    if relation in HELD_TO_FLOOR:
        return floor
    # A candidate is as far from the golden as from the baseline, which the golden once was.
    name = "pair" if relation == Relation.GOLDEN_CANDIDATE else relation.value
    if name not in approved:
        return []
    figure = approved[name]
    latents = [bound for bound in floor if bound.domain == "latents"]
    # An approved figure at the floor is noise, and noise may move: the floor itself is asked for then.
    if figure is None or any(bound.metric == "psnr" and figure - MARGIN_DB > bound.value for bound in latents):
        return latents
    return [Bound("psnr", "latents", round(figure - MARGIN_DB, 2), "dB", "approved", MARGIN_DB)]
