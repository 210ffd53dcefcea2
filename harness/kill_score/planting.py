"""Rows for planted bugs: the cheapest of a matrix of healthy ones that can show each, and the matrix with them.

The matrix may be drawn otherwise than its file says (:class:`Overrides`): in another type, on another device, with
another model, at other sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from harness import plugins
from harness.errors import UsageError, did_you_mean
from harness.matrix.coverage import Sight, met_by, sights
from harness.matrix.selection import narrowed
from harness.planning.graph import Graph
from harness.plugins import Fault
from harness.types import Case, Device, DType, Matrix, Row, Size

HANG_TIMEOUT_S = 10.0
"""Time limit of cases at which a bug is planted that hangs."""


@dataclass(frozen=True)
class Place:
    """A row in which a bug is planted, and the requests that the engine serves before it."""

    fault: str
    pairs: tuple[tuple[str, str], ...]
    """``(case name, variant label)`` of the healthy rows, the one that can show the bug last."""


@dataclass(frozen=True)
class Overrides:
    """Settings of a matrix that are not those of its file; ``None`` and empty leave it as it is."""

    model: str | None = None
    dtype: str | None = None
    device: str | None = None
    sizes: tuple[str, ...] = ()
    """``WIDTHxHEIGHT``, one of each orientation. A case takes that of its own; a portrait case takes a landscape size
    turned, and the other way round. Cases that none fits are left out, and so are those that become equal."""
    max_ranks: int | None = None
    """Rows on more ranks are left out."""


def overridden(matrix: Matrix, overrides: Overrides) -> Matrix:
    """Change a matrix by settings of the command line.

    Raises
    ------
    UsageError
        If a value is not allowed, two sizes have one orientation, or no row is left.
    """
    for option, value, known in (("--dtype", overrides.dtype, DType), ("--device", overrides.device, Device)):
        if value is not None and value not in get_args(known):
            raise UsageError(f"{option} {value!r}: {did_you_mean(value, get_args(known))}")
    sizes = _by_orientation(overrides.sizes)
    chosen: dict[str, Any] = {key: getattr(overrides, key) for key in ("model", "dtype", "device")}
    named = {key: value for key, value in chosen.items() if value is not None}
    cases = {case.name: _sized(replace(case, **named), sizes) for case in matrix.cases}
    kept = _different(matrix.cases, cases)
    degrees = {variant.label: variant.degree for variant in matrix.variants}
    most = overrides.max_ranks or max(degrees.values())
    pairs = tuple((kept[name].name, label) for name, label in matrix.pairs if name in kept and degrees[label] <= most)
    if not pairs:
        raise UsageError(f"{matrix.path}: no row is left with these sizes and ranks; see sp-harness ls {matrix.path}")
    return narrowed(replace(matrix, cases=tuple(kept.values())), pairs)


def _orientation(size: Size) -> int:
    return (size.width_px > size.height_px) - (size.width_px < size.height_px)


def _by_orientation(texts: Sequence[str]) -> dict[int, Size]:
    found: dict[int, Size] = {}
    for text in texts:
        try:
            size = Size.parse(text)
        except ValueError as error:
            raise UsageError(f"--size: {error}") from None
        if _orientation(size) in found:
            raise UsageError(f"--size {text}: {found[_orientation(size)]} has the same orientation; name one of each")
        found[_orientation(size)] = size
    turned = {-_orientation(size): Size(size.height_px, size.width_px) for size in found.values()}
    return turned | found


def _sized(case: Case, sizes: dict[int, Size]) -> Case | None:
    """A case at the size of its orientation, named after it; ``None`` where there is none."""
    if not sizes:
        return case
    size = sizes.get(_orientation(case.size))
    return replace(case, size=size, name=case.name.replace(str(case.size), str(size))) if size else None


def _different(before: Iterable[Case], after: dict[str, Case | None]) -> dict[str, Case]:
    """Cases that are left by their former names: sequences whole, and of equal ones the first."""
    broken = {case.sequence for case in before if after[case.name] is None}
    kept: dict[str, Case] = {}
    seen: list[dict[str, Any]] = []
    for name, case in after.items():
        if case is None or (case.sequence and case.sequence in broken):
            continue
        if case.sequence or case.identity() not in seen:
            kept[name] = case
            seen += [] if case.sequence else [case.identity()]
    return kept


def place(graph: Graph, only: Sequence[str] = ()) -> tuple[list[Place], dict[str, str]]:
    """Find the cheapest row for every bug, or for those named; one without surplus pads where there is any.

    Surplus pads change the picture by themselves: without them a gate on the whole picture sees the bug alone.

    Returns
    -------
    places, not_planted
        Where each bug goes, and for the others what the matrix lacks.

    Raises
    ------
    UsageError
        If a name is none of a bug.
    """
    for name in only:
        if name not in plugins.names("faults"):
            raise UsageError(f"there is no fault {name!r}; {did_you_mean(name, plugins.names('faults'))}")
    offered = [(sight, set(met_by(sight))) for sight in sights(graph) if sight.row.variant.fault is None]
    places, not_planted = [], {}
    for fault in _faults(only):
        fitting = [sight for sight, classes in offered if classes >= set(fault.needs) and _takes(sight, fault)]
        if fitting:
            cheapest = min(fitting, key=lambda sight: _cost(sight, graph))
            places.append(
                Place(fault.name, tuple((row.case.name, row.variant.label) for row in _served(cheapest, graph)))
            )
        else:
            not_planted[fault.name] = ", ".join(fault.needs) or "a row split over ranks"
    return places, not_planted


def planted(matrix: Matrix, places: Sequence[Place], whole: bool) -> Matrix:
    """Write the bugs into a matrix: beside all its rows, or beside those alone that they are planted in."""
    used = {pair for place in places for pair in place.pairs}
    healthy = tuple(pair for pair in matrix.pairs if whole or pair in used)
    variants = {variant.label: variant for variant in matrix.variants}
    pairs, short = list(healthy), set()
    for where in places:
        for case, label in where.pairs:
            faulty = replace(variants[label], fault=where.fault)
            variants.setdefault(faulty.label, faulty)
            pairs.append((case, faulty.label))
            short |= {case} if plugins.load("faults", where.fault).cause == "hang" else set()
    cases = tuple(
        replace(case, timeout_s=min(case.timeout_s, HANG_TIMEOUT_S)) if case.name in short else case
        for case in matrix.cases
    )
    named = {name for name, _ in pairs}
    labels = {label for _, label in pairs}
    return replace(
        matrix,
        pairs=tuple(pairs),
        cases=tuple(case for case in cases if case.name in named),
        variants=tuple(variant for label, variant in variants.items() if label in labels),
    )


def places_in(rows: Iterable[Row]) -> list[Place]:
    """Read off where bugs are planted from the rows of a run, in the order of the run."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.variant.fault:
            healthy = replace(row.variant, fault=None)
            pairs.setdefault(row.variant.fault, []).append((row.case.name, healthy.label))
    return [Place(fault, tuple(found)) for fault, found in pairs.items()]


def _faults(only: Sequence[str]) -> Iterator[type[Fault]]:
    for name in plugins.names("faults"):
        if not only or name in only:
            yield plugins.load("faults", name)


def _takes(sight: Sight, fault: type[Fault]) -> bool:
    return fault.name in plugins.load("engines", sight.row.variant.engine).faults()


def _served(sight: Sight, graph: Graph) -> list[Row]:
    """A row, behind those of the same sequence that are served before it."""
    row = sight.row
    if row.case.sequence is None:
        return [row]
    same = [r for r in graph.rows if (r.case.sequence, r.variant.label) == (row.case.sequence, row.variant.label)]
    return same[: same.index(row) + 1]


def _cost(sight: Sight, graph: Graph) -> tuple[bool, bool, int]:
    """Engines of its own, surplus pads, and tokens that are computed, over steps, pictures and ranks."""
    rows = _served(sight, graph)
    tokens = sum(_tokens(r.case) * r.variant.degree for r in rows)
    padded = any(r.plan is not None and r.plan.surplus_pad_tokens > 0 for r in rows)
    return sight.row.case.sequence is not None, padded, tokens


def _tokens(case: Case) -> int:
    """Image tokens that are computed for a case; guidance computes them twice."""
    return case.size.tokens * case.steps * case.num_images * (2 if case.guidance_scale > 0 else 1)
