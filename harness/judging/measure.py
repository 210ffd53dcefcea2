"""Measurement of two samples: pure functions of their arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.plugins import Context, Metric
from harness.runs.sample import Sample
from harness.types import Comparison, Domain, Figure, Relation, Run

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]

CELLS_PER_TOKEN = 2
"""Along one side of a token of latents."""

FIRST_VALUES = 4096
"""Compared first: arrays that differ mostly differ there already."""


def measure(
    relation: Relation, reference: Sample, candidate: Sample, metrics: Sequence[Metric], context: Context
) -> Comparison:
    """Compare two samples by every metric; of several pictures the worst figure counts.

    Different sizes and values that are not finite make ``Comparison.problem``: nothing is resized or replaced.

    Parameters
    ----------
    relation
        Relation of the two.
    reference, candidate
        The samples. Only what both have, pictures or latents, is compared.
    metrics
        Metrics to measure, each on the domains it knows.
    context
        Shard plan for the metrics.
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
        steps_worst_db=_tokens_db(reference, candidate, np.max),
        steps_median_db=_tokens_db(reference, candidate, np.median),
        narrowed=_narrowed(reference, candidate),
    )


def find_problem(reference: Sample, candidate: Sample) -> str | None:
    """Return the reason why two samples cannot be compared, or ``None``."""
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
    """Whether all values are equal; the first values are compared alone, as they mostly decide it."""
    start = slice(FIRST_VALUES)
    return np.array_equal(first.ravel()[start], second.ravel()[start]) and np.array_equal(first, second)


def _fixed(array: Array) -> Array:
    """Return a read-only view: no metric can change it for the next."""
    view = array.view()
    view.flags.writeable = False
    return view


def _unequal(left: Sequence[Array], right: Sequence[Array]) -> list[Pair]:
    return [(_fixed(a), _fixed(b)) for a, b in zip(left, right, strict=True) if not _equal(a, b)]


def _figures(metrics: Sequence[Metric], domain: Domain, pairs: Sequence[Pair], context: Context) -> list[Figure]:
    """Measure the pairs of unequal arrays; no figures where there are none."""
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


def _tokens_db(
    reference: Sample, candidate: Sample, chosen: Callable[[Array], np.floating[Any]]
) -> tuple[float | None, ...]:
    """PSNR of one image token after each step, the worst or the median, where both sides recorded them."""
    left, right = reference.trajectory, candidate.trajectory
    if left is None or right is None or left.shape != right.shape or any(n % CELLS_PER_TOKEN for n in left.shape[-2:]):
        return ()
    steps = (max(float(chosen(each)) for each in _token_errors(a, b)) for a, b in zip(left, right, strict=True))
    return tuple(round(-10 * math.log10(error), 4) if error > 0 else None for error in steps)


def _token_errors(reference: Array, candidate: Array) -> list[Array]:
    """Mean squared error of each image token over the squared span, picture by picture."""
    side = CELLS_PER_TOKEN
    errors = []
    for before, after in zip(reference, candidate, strict=True):
        channels, height, width = before.shape
        squares = np.square(after.astype(np.float64) - before)
        tokens = squares.reshape(channels, height // side, side, width // side, side).mean(axis=(0, 2, 4))
        span = float(before.max()) - float(before.min())
        errors.append(tokens / span**2 if span else tokens)
    return errors


def _narrowed(reference: Sample, candidate: Sample) -> bool:
    """Whether the candidate's latents alone hold nothing below bfloat16's last place."""
    if reference.latents is None or candidate.latents is None:
        return False
    fine, coarse = (bool((side.view(np.uint32) & 0xFFFF).any()) for side in (reference.latents, candidate.latents))
    return fine and not coarse and bool(candidate.latents.any())


def _worst(figures: list[Figure], higher_is_better: bool) -> Figure:
    unknown = [figure for figure in figures if figure.value is None]
    if unknown:  # unequal by an amount that could not be measured counts as the worst
        return unknown[0]
    choose = min if higher_is_better else max
    return choose(figures, key=lambda figure: figure.value or 0.0)


def compare_decisions(reference: Run, candidate: Run) -> Comparison:
    """Compare a cache's decisions at each step: equal on all ranks, and equal to the reference's.

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
    """Format decisions: ``C`` served from the cache, ``.`` computed."""
    return "".join("C" if served else "." for served in decisions) or "nothing"
