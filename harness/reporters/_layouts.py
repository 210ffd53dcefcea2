"""Layouts ``aligned`` and ``exact`` side by side: what the pads of each cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.reporters._costs import exchanged_bytes, step_s
from harness.reporters._words import FAILING, figure_text, judged, latents_db, outcome_of, pads_text, run_of, state_of
from harness.types import Outcome, Relation, Report, Row, Variant

LEAD = (
    "Both layouts cut the picture alike. aligned pads every rank to the same multiple of 32 tokens, exact keeps "
    "only the pads that one device has."
)

_BROKEN = FAILING - {Outcome.NO_GOLDEN}


@dataclass(frozen=True)
class Side:
    """One layout's row in figures."""

    row: Row
    pads: str
    surplus: int
    sent_bytes: int | None
    step_s: float | None
    pair: str
    pair_state: str


@dataclass(frozen=True)
class Both:
    """One case, degree, ring and axis under both layouts."""

    aligned: Side
    exact: Side

    @property
    def axis(self) -> str:
        """Axis as asked for, with the one that was used."""
        row = self.exact.row
        used = row.plan.axis if row.plan else row.variant.axis
        return used if row.variant.axis in (used, "none") else f"{row.variant.axis} → {used}"

    @property
    def others(self) -> str:
        """Properties of a variant beyond degree, ring and axis: cache, options, fault."""
        variant = self.exact.row.variant
        degrees = (variant.ulysses, variant.ring, variant.axis)
        plain = Variant(variant.engine, *degrees, "exact", environment=variant.environment).label
        return variant.label.removeprefix(plain).removeprefix("-")


def side_by_side(report: Report) -> list[Both]:
    """Pair the rows of both layouts, the worst pair of ``aligned`` first; two rows that share runs count once."""
    rows = {_key(row): row for row in report.rows if _was_drawn(report, row)}
    found: dict[tuple[str, ...], Both] = {}
    for row in rows.values():
        other = rows.get(_key(replace(row, variant=replace(row.variant, layout="exact"))))
        if row.variant.layout == "aligned" and other is not None:
            runs = (row.runs["candidate"], other.runs["candidate"], row.case.name)
            found.setdefault(runs, Both(_side(report, row), _side(report, other)))
    return sorted(found.values(), key=lambda both: _pair_db(both.aligned))


def meaning(lines: Sequence[Both]) -> str:
    """Say in one sentence what the lines mean; those that do not pass say nothing about layouts."""
    sound = [both for both in lines if not {outcome_of(both.aligned.row), outcome_of(both.exact.row)} & _BROKEN]
    if not sound:
        return "No line has both layouts in order, so nothing is said about their cost."
    lowest = {
        "aligned": min(_pair_db(both.aligned) for both in sound),
        "exact": min(_pair_db(both.exact) for both in sound),
    }
    padded = [both for both in sound if both.aligned.surplus]
    costs = _costs(padded or sound)
    those = f"the {len(padded)} with surplus pads" if padded else f"all {len(sound)}"
    typical = f"; in the median of {those}, exact {costs}" if costs else ""
    return (
        f"The lowest pair, what a user sees of the split, is {_db_text(lowest['aligned'])} for aligned and "
        f"{_db_text(lowest['exact'])} for exact{typical}."
    )


def _costs(lines: Sequence[Both]) -> str:
    sent = _change([(both.aligned.sent_bytes, both.exact.sent_bytes) for both in lines])
    took = _change([(both.aligned.step_s, both.exact.step_s) for both in lines])
    return " and ".join(words for words in (sent and f"sends {sent}", took and f"takes {took} time a step") if words)


def _was_drawn(report: Report, row: Row) -> bool:
    run = run_of(report, row, "candidate")
    return run is not None and run.failure is None and row.plan is not None


def _key(row: Row) -> tuple[str, str]:
    return row.case.name, row.variant.label


def _side(report: Report, row: Row) -> Side:
    run, pair = run_of(report, row, "candidate"), row.comparison(Relation.PAIR)
    ok = False if outcome_of(row) in _BROKEN else judged(row, Relation.PAIR)[0]
    surplus = row.plan.surplus_pad_tokens if row.plan else 0
    return Side(row, pads_text(row), surplus, exchanged_bytes(run), step_s(run), figure_text(pair), state_of(ok))


def _pair_db(side: Side) -> float:
    value = latents_db(side.row.comparison(Relation.PAIR))
    return float("inf") if value is None else value


def _db_text(value: float) -> str:
    return "exact" if value == float("inf") else f"{value:.1f} dB"


def _change(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """Median of second over first in words, such as ``12 % less``; empty where nothing was measured."""
    ratios = [second / first for first, second in pairs if first and second is not None]
    if not ratios:
        return ""
    percent = round((median(ratios) - 1) * 100)
    return "as much" if not percent else f"{abs(percent)} % {'more' if percent > 0 else 'less'}"
