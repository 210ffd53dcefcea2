"""Kill score: which planted bugs were found, by which comparison, with the right cause.

Beside it stands what each gate of :mod:`harness.kill_score.other_gates` says of the very same pictures, and of the
healthy rows. Where bugs are planted is :mod:`harness.kill_score.planting`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import plugins
from harness.diagnose.cause import first_failing
from harness.errors import EXIT_OK, EXIT_VERDICT
from harness.kill_score import other_gates
from harness.kill_score.other_gates import Said, Word
from harness.kill_score.planting import Place
from harness.runs.sample import Sample
from harness.types import SCHEMA, Outcome, Report, Row, Run

SampleOf = Callable[[Run], Sample]


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
    healthy_passed: bool = True
    """Whether the harness passes the same row without the bug; a picture that fails either way shows nothing."""

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
    setting: str = ""
    """Model, type and device of what was drawn, and with which torch."""
    commit: str = ""
    """Where the checkout stood that drew and judged; empty where the harness is installed otherwise."""
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        """0 if every planted bug was found and every healthy row passes."""
        well = all(fault.detected for fault in self.faults) and all(row.passed for row in self.healthy)
        return EXIT_OK if well else EXIT_VERDICT


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
            _passes(row),
            row.verdict.sentence if row.verdict else "",
            said[row.name].words,
            said[row.name].figures,
        )
        for row in report.rows
        if row.variant.fault is None and row.skip is None
    )
    faults = tuple(_fault_score(where, rows, said) for where in places)
    return KillScore(
        report.name,
        faults,
        healthy,
        dict(not_planted),
        wall_s=report.wall_s,
        setting=_setting(report),
        commit=_commit(),
    )


def _setting(report: Report) -> str:
    cases = report.matrix.cases
    drawn = [", ".join(sorted({getattr(case, key) for case in cases})) for key in ("model", "dtype", "device")]
    versions = [f"{name} {report.environment[name]}" for name in ("device", "torch") if name in report.environment]
    return f"{drawn[0]} in {drawn[1]} on {drawn[2]}" + (f" ({', '.join(versions)})" if versions else "")


def _commit() -> str:
    """Describe the checkout that holds this file; empty where it is installed or there is no git."""
    tracked = _git("ls-files", Path(__file__).name)
    return _git("describe", "--always", "--dirty") if tracked else ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


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
        healthy_passed=_passes(rows[twins[found]]),
    )


def _faulty(twin: str, fault: str, rows: Mapping[str, Row]) -> Row:
    healthy = rows[twin]
    return rows[f"{healthy.case.name}/{replace(healthy.variant, fault=fault).label}"]


def _passes(row: Row) -> bool:
    return row.verdict is not None and row.verdict.outcome == Outcome.PASS


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
