"""One run as a line of ``history.jsonl``, small enough to be kept after its pictures are deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import EXIT_INFRASTRUCTURE
from harness.types import Comparison, Domain, Outcome, Relation, Report, Row, Run

SCHEMA = 1
"""Version of a line of ``history.jsonl``."""

FIGURES: Mapping[str, tuple[Relation, Domain]] = {
    "exchange_db": (Relation.EXCHANGE, "latents"),
    "pair_db": (Relation.PAIR, "latents"),
    "layout_db": (Relation.LAYOUT, "latents"),
    "pair_image_db": (Relation.PAIR, "image"),
}
"""Figures followed over runs: PSNR of a relation, in dB."""

OURSELVES = "sp-harness"
"""The package under development: its version is not part of the compared environment."""


@dataclass(frozen=True)
class EntryRow:
    """One row in one run; ``None`` where nothing was measured."""

    outcome: str | None = None
    cause: str | None = None
    sentence: str = ""
    """Only of rows that do not pass."""
    figures_db: Mapping[str, float | None] = field(default_factory=dict)
    """By the names of :data:`FIGURES`; ``None`` where both sides are equal to the last bit."""
    step_s: float | None = None
    baseline_step_s: float | None = None
    peak_memory_bytes: int | None = None
    """Of the rank that needed most."""
    wall_s: float | None = None


@dataclass(frozen=True)
class Entry:
    """One run of a matrix."""

    run: str
    matrix: str
    started_at: str
    exit_code: int
    complete: bool
    wall_s: float
    platform: str
    environment: Mapping[str, str]
    rows: Mapping[str, EntryRow]
    schema: int = SCHEMA

    @property
    def has_report(self) -> bool:
        """Whether the run left a report."""
        return bool(self.rows or self.environment)

    @property
    def key(self) -> tuple[str, str]:
        """Identity of a run; runs of two machines may share a name."""
        return self.run, self.started_at

    @property
    def comparable_environment(self) -> tuple[tuple[str, str], ...]:
        """Devices, driver, libraries and weights: figures and times are comparable only where these are equal."""
        return tuple(sorted((name, value) for name, value in self.environment.items() if name != OURSELVES))


def unreported(run: str, matrix: str, started_at: str) -> Entry:
    """Make the entry of a run that was planned and left no report: it has no rows and no environment."""
    return Entry(run, matrix, started_at, EXIT_INFRASTRUCTURE, False, 0.0, "", {}, {})


def entry_of(report: Report) -> Entry:
    """Reduce a report to the figures that are followed from run to run."""
    return Entry(
        run=report.name,
        matrix=report.matrix.name,
        started_at=report.started_at,
        exit_code=report.exit_code,
        complete=report.complete,
        wall_s=report.wall_s,
        platform=report.platform,
        environment={**report.environment, **_weights(report)},
        rows={row.name: _row(report, row) for row in report.rows},
    )


def _weights(report: Report) -> dict[str, str]:
    return {f"weights of {run.spec.case.model}": run.spec.weights[:12] for run in report.runs.values()}


def _row(report: Report, row: Row) -> EntryRow:
    verdict = row.verdict
    outcome = verdict.outcome if verdict else Outcome.SKIP if row.skip is not None else None
    candidate, baseline = (report.runs.get(row.runs.get(role, "")) for role in ("candidate", "baseline"))
    compared = {name: _figure(row.comparison(relation), domain) for name, (relation, domain) in FIGURES.items()}
    return EntryRow(
        outcome=outcome.value if outcome else None,
        cause=verdict.cause if verdict else None,
        sentence="" if verdict is None or outcome in (Outcome.PASS, Outcome.SKIP) else verdict.sentence,
        figures_db={name: found[0] for name, found in compared.items() if found},
        step_s=_seconds(candidate),
        baseline_step_s=_seconds(baseline),
        peak_memory_bytes=max(candidate.peak_memory_bytes, default=None) if candidate else None,
        wall_s=candidate.wall_s if candidate else None,
    )


def _figure(comparison: Comparison | None, domain: Domain) -> tuple[float | None] | None:
    """PSNR of a comparison as a 1-tuple, ``(None,)`` where both sides are equal; ``None`` without a figure."""
    if comparison is None or comparison.problem is not None:
        return None
    if comparison.same_run or (comparison.exact_latents if domain == "latents" else comparison.exact_image):
        return (None,)
    figure: Any = comparison.figure("psnr", domain)
    return (round(figure.value, 3),) if figure is not None and figure.value is not None else None


def _seconds(run: Run | None) -> float | None:
    seconds = run.times.typical_step_s if run and run.failure is None else None
    return None if seconds is None else round(seconds, 6)
