"""Kill score: every planted bug at a cheap row that can show it, beside what other projects' gates say.

:func:`place` looks for those rows in a matrix of healthy ones, :func:`planted` writes the bugs into it, and
:func:`score` reads the report of that run: which bugs were found, by which comparison, with the right cause;
what each gate of :mod:`harness.kill_score.other_gates` says of the very same pictures, and of the healthy rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness import plugins
from harness.diagnose.cause import first_failing
from harness.errors import EXIT_OK, EXIT_VERDICT, UsageError, did_you_mean
from harness.kill_score import other_gates
from harness.kill_score.other_gates import Said, Word
from harness.matrix.coverage import Sight, met_by, sights
from harness.planning.graph import Graph
from harness.plugins import Fault
from harness.runs.sample import Sample
from harness.types import SCHEMA, Case, Matrix, Outcome, Report, Row, Run

HANG_TIMEOUT_S = 10.0
"""Time limit of cases at which a bug is planted that hangs."""

SampleOf = Callable[[Run], Sample]


@dataclass(frozen=True)
class Place:
    """A row in which a bug is planted, and the requests that the engine serves before it."""

    fault: str
    pairs: tuple[tuple[str, str], ...]
    """``(case name, variant label)`` of the healthy rows, the one that can show the bug last."""


@dataclass(frozen=True)
class FaultScore:
    """Result of one planted bug."""

    fault: str
    source: str
    cause: str
    """The cause a right diagnosis names."""
    row: str
    """Where it was found; where it was not, the row that should have shown it."""
    detected: bool
    by: str
    """The comparison that found it; ``no picture`` for a crash or a hang."""
    found_cause: str | None
    sentence: str
    gates: Mapping[str, Word] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """What the gates measured; an infinite PSNR is null in JSON."""
    healthy_gates: Mapping[str, Word] = field(default_factory=dict)
    """What the gates say of the same row without the bug."""

    @property
    def cause_right(self) -> bool:
        """Whether the cause that was named is the bug's own."""
        return self.detected and self.found_cause == self.cause


@dataclass(frozen=True)
class HealthyScore:
    """A row without a bug."""

    row: str
    surplus_pads: int
    passed: bool
    sentence: str
    gates: Mapping[str, Word] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class KillScore:
    """The result of ``sp-harness faults run`` (``killscore.json``)."""

    name: str
    faults: tuple[FaultScore, ...]
    healthy: tuple[HealthyScore, ...]
    not_planted: Mapping[str, str]
    """Bugs that no row of the matrix can show, and what such a row needs."""
    rules: Mapping[str, str] = field(default_factory=lambda: {gate.name: gate.rule for gate in other_gates.GATES})
    left_out: Mapping[str, str] = field(default_factory=lambda: dict(other_gates.LEFT_OUT))
    wall_s: float = 0.0
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        """0 if every planted bug was found and every healthy row passes."""
        well = all(fault.detected for fault in self.faults) and all(row.passed for row in self.healthy)
        return EXIT_OK if well else EXIT_VERDICT


# ---------------------------------------------------------------- planting


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


# ---------------------------------------------------------------- scoring


def score(report: Report, places: Sequence[Place], not_planted: Mapping[str, str], sample: SampleOf) -> KillScore:
    """Read off a report what became of every bug and of every healthy row.

    Parameters
    ----------
    report
        Of a run of :func:`planted`.
    places, not_planted
        From :func:`place`.
    sample
        Loads the pictures of a run.
    """
    rows = {row.name: row for row in report.rows}
    said = {row.name: _ask(row, report, sample) for row in report.rows if row.skip is None}
    healthy = tuple(
        HealthyScore(
            row.name,
            row.plan.surplus_pad_tokens if row.plan else 0,
            row.verdict is not None and row.verdict.outcome == Outcome.PASS,
            row.verdict.sentence if row.verdict else "",
            said[row.name].words,
            said[row.name].figures,
        )
        for row in report.rows
        if row.variant.fault is None and row.skip is None
    )
    faults = tuple(_fault_score(where, rows, said) for where in places)
    return KillScore(report.name, faults, healthy, dict(not_planted), wall_s=report.wall_s)


def _fault_score(where: Place, rows: Mapping[str, Row], said: Mapping[str, Said]) -> FaultScore:
    twins = [f"{case}/{label}" for case, label in where.pairs]
    faulty = [_faulty(twin, where.fault, rows) for twin in twins]
    found = next((index for index, row in enumerate(faulty) if _found(row)), len(faulty) - 1)
    row, fault = faulty[found], plugins.load("faults", where.fault)
    return FaultScore(
        fault=where.fault,
        source=fault.source,
        cause=fault.cause,
        row=twins[found],
        detected=_found(row),
        by=_by(row),
        found_cause=row.verdict.cause if row.verdict else None,
        sentence=row.verdict.sentence if row.verdict else "",
        gates=said[row.name].words,
        figures=said[row.name].figures,
        healthy_gates=said[twins[found]].words,
    )


def _faulty(twin: str, fault: str, rows: Mapping[str, Row]) -> Row:
    healthy = rows[twin]
    return rows[f"{healthy.case.name}/{replace(healthy.variant, fault=fault).label}"]


def _found(row: Row) -> bool:
    """Whether a row fails, and through no fault of the machine."""
    verdict = row.verdict
    failing = (Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT)
    return verdict is not None and verdict.outcome in failing and not verdict.infrastructure


def _by(row: Row) -> str:
    if row.verdict is None or not _found(row):
        return ""
    relation = first_failing(row.verdict.judgements)
    return relation.value if relation else "no picture"


def _ask(row: Row, report: Report, sample: SampleOf) -> Said:
    """Answers of the gates for a row's pictures: baseline against candidate."""
    sides = [report.runs.get(row.runs[role]) for role in ("baseline", "candidate")]
    reference, candidate = (sample(run) if run and run.failure is None else None for run in sides)
    return other_gates.ask(reference, candidate)
