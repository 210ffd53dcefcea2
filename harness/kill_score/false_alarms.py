"""False alarms: the share of healthy rows that fail, its confidence interval, and the calibration they yield."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import codec
from harness.diagnose import calibration, noise_floor
from harness.diagnose.calibration import Calibration
from harness.types import SCHEMA, Comparison, Outcome, Relation, Report, Row

CONFIDENCE = 0.95
HEALTHY = (Relation.EXCHANGE, Relation.CONTROL)
"""Comparisons of a healthy row that are right by construction."""


@dataclass(frozen=True)
class Rate:
    """Healthy rows of one dtype that fail (``benign.json`` has one for each)."""

    dtype: str
    rows: int
    failed: tuple[str, ...]
    """``ROW: sentence``."""
    suspicious: int
    """Rows that pass, and were drawn once more."""
    low: float
    high: float
    """Confidence interval of the share, after Clopper and Pearson."""
    schema: int = SCHEMA

    def per_run(self, rows: int) -> float:
        """Return the upper limit of the share of runs of so many rows in which any fails."""
        return 1.0 - (1.0 - self.high) ** rows


def rates(report: Report) -> list[Rate]:
    """Count failing rows by dtype; rows that were skipped count for nothing."""
    found = []
    for dtype in dict.fromkeys(row.case.dtype for row in report.rows):
        rows = [row for row in report.rows if row.case.dtype == dtype and row.verdict and row.skip is None]
        failed = [
            f"{row.name}: {row.verdict.sentence}" for row in rows if row.verdict and row.verdict.outcome != Outcome.PASS
        ]
        suspicious = sum(bool(row.verdict and row.verdict.suspicious) for row in rows)
        found.append(Rate(dtype, len(rows), tuple(failed), suspicious, *_interval(len(failed), len(rows))))
    return found


def _interval(failed: int, rows: int) -> tuple[float, float]:
    """Return the exact confidence interval of a share."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    if not rows:
        return 0.0, 1.0
    interval = binomtest(failed, rows).proportion_ci(CONFIDENCE, "exact")
    return float(interval.low), float(interval.high)


def lines(found: Sequence[Rate], pr_rows: Mapping[str, int]) -> Iterator[str]:
    """Write the rates as lines of text.

    Parameters
    ----------
    found
        From :func:`rates`.
    pr_rows
        Rows of the PR matrix by dtype.
    """
    for rate in found:
        yield (
            f"{rate.dtype}: {len(rate.failed)} of {rate.rows} healthy rows failed, {rate.suspicious} were looked into "
            f"and pass; a row fails with {rate.low:.2%} to {rate.high:.2%} ({CONFIDENCE:.0%} confidence)"
        )
        if (rows := pr_rows.get(rate.dtype)) is not None:
            yield f"    a run of the PR matrix ({rows} rows) with at most {rate.per_run(rows):.1%}"
        yield from (f"    {failed}" for failed in rate.failed)


def fitted(report: Report) -> list[Calibration]:
    """Fit a calibration of each platform that the report has draws of; float32 needs none."""
    platforms: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        baseline = report.runs.get(row.runs.get("baseline", ""))
        if baseline is not None and row.comparisons and row.case.dtype != "float32":
            key = baseline.spec.weights, row.case.device, row.case.dtype
            platforms.setdefault(key, []).append(row)
    environment = ", ".join(
        f"{name} {report.environment[name]}" for name in ("device", "torch") if name in report.environment
    )
    return [
        calibration.fit(
            _requests(rows), Calibration(rows[0].case.model, weights, device, dtype, environment=environment)
        )
        for (weights, device, dtype), rows in platforms.items()
    ]


def _requests(rows: Sequence[Row]) -> list[calibration.Request]:
    """Collect the requests of rows: one for each baseline, with every different healthy comparison of it."""
    draws: dict[str, list[Comparison]] = {}
    healthy: dict[str, dict[str, Comparison]] = {}
    first: dict[str, Row] = {}
    for row in rows:
        own = [comparison for comparison in row.comparisons if comparison.relation == Relation.FLOOR]
        if not own or any(comparison.problem for comparison in row.comparisons):
            continue
        baseline = row.runs["baseline"]
        first.setdefault(baseline, row)
        draws.setdefault(baseline, own)
        for comparison in row.comparisons:
            if comparison.relation in HEALTHY and not comparison.exact:
                healthy.setdefault(baseline, {})[str(codec.encode(comparison.figures))] = comparison
    return [
        noise_floor.request_of(row, draws[baseline], list(healthy.get(baseline, {}).values()))
        for baseline, row in first.items()
    ]
