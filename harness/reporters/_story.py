"""Summary of a whole report: headline, failures with place and cause, and the margin of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.reporters._words import (
    DECISIONS_KEY,
    EXIT_WORDS,
    FAILED_RELATION_WORDS,
    NEVER_SERVED,
    NOT_JUDGED,
    OUTCOME_WORDS,
    failing,
    judged,
    latents_db,
    outcome_of,
    plural,
    sentence_of,
)
from harness.types import Outcome, Relation, Report, Row

MAX_PLACES = 3


@dataclass(frozen=True)
class Finding:
    """Rows that do not pass for one reason: what broke, where, why."""

    what: str
    rows: tuple[Row, ...]
    cause: str | None
    why: str

    @property
    def where(self) -> str:
        """Cases with the axes they were asked on, ``720x720 on h, w; 1280x720 on w``; a long list is cut."""
        axes: dict[str, list[str]] = {}
        for row in self.rows:
            asked = axes.setdefault(row.case.name, [])
            if row.variant.axis not in asked:
                asked.append(row.variant.axis)
        places = [name if on == ["none"] else f"{name} on {', '.join(on)}" for name, on in axes.items()]
        rest = len(places) - MAX_PLACES
        if rest > 0:
            places[MAX_PLACES:] = [f"and {plural(rest, 'more case')}"]
        return "; ".join(places)

    @property
    def key(self) -> str:
        """Key to signs that the reason uses, if any."""
        return DECISIONS_KEY if self.what == FAILED_RELATION_WORDS[Relation.CACHE] else ""

    @property
    def places(self) -> list[tuple[Row, str]]:
        """Each row with a name for its link; the variant is named where case and axis do not tell it apart."""
        names = [_place(row) for row in self.rows]
        return [
            (row, name if names.count(name) == 1 else f"{name} ({row.variant.label})")
            for row, name in zip(self.rows, names, strict=True)
        ]


def headline(report: Report) -> str:
    """Say in one line what broke first and where, or that nothing did."""
    broken = findings(report)
    if broken:
        first, others = broken[0], sum(len(finding.rows) for finding in broken[1:])
        rest = f", and {plural(others, 'more row')} {'does' if others == 1 else 'do'} not pass" if others else ""
        return f"{first.what} at {first.where}{rest}."
    number = sum(outcome_of(row) is Outcome.PASS for row in report.rows)
    if not number:
        return "Nothing was judged."
    if report.exit_code:
        return _not_well(report, number)
    rows = "The one row judged passes" if number == 1 else f"All {number} rows judged pass"
    return f"{rows}: splitting itself costs nothing."


def _not_well(report: Report, num_passing: int) -> str:
    """Headline of a run in which no judged row fails."""
    well = f"{plural(num_passing, 'row')} {'passes' if num_passing == 1 else 'pass'}"
    if not report.complete:
        return f"The run did not finish: {well}, {plural(len(report.rows) - num_passing, 'row')} not."
    skipped = [row for row in report.rows if outcome_of(row) is Outcome.SKIP and row.variant.required]
    if skipped:
        where = Finding("", tuple(skipped), None, "").where
        were = "was" if len(skipped) == 1 else "were"
        return f"{plural(len(skipped), 'required row')} {were} skipped, at {where}: {sentence_of(skipped[0])}"
    return f"{well}, but the run ended with {report.exit_code}: {EXIT_WORDS.get(report.exit_code, 'unknown')}."


def findings(report: Report) -> list[Finding]:
    """Group the rows that do not pass by what broke and why, worst first."""
    groups: dict[tuple[str, str | None], list[Row]] = {}
    for row in failing(report.rows):
        groups.setdefault((_what(row), row.verdict.cause if row.verdict else None), []).append(row)
    return [Finding(what, tuple(rows), cause, sentence_of(rows[0])) for (what, cause), rows in groups.items()]


def _place(row: Row) -> str:
    return row.case.name if row.variant.axis == "none" else f"{row.case.name} on {row.variant.axis}"


def _what(row: Row) -> str:
    outcome = outcome_of(row)
    if outcome is Outcome.FAIL:
        for relation, words in FAILED_RELATION_WORDS.items():
            if judged(row, relation)[0] is False:
                return words
    if outcome is Outcome.ERROR and row.verdict and row.verdict.cause == "cache":
        return NEVER_SERVED
    return OUTCOME_WORDS.get(outcome, NOT_JUDGED) if outcome else NOT_JUDGED


def summary_sentences(report: Report) -> list[str]:
    """Say how close the split runs came, and what pads cost where nothing is broken."""
    sentences = []
    exchange = _weakest(report.rows, Relation.EXCHANGE)
    if exchange:
        sentences.append(f"Lowest exchange: {exchange[0]:.1f} dB at {exchange[1].name}.")
    padded = [
        row
        for row in report.rows
        if outcome_of(row) is Outcome.PASS and row.plan is not None and row.plan.surplus_pad_tokens > 0
    ]
    pair = _weakest(padded, Relation.PAIR)
    if pair:
        sentences.append(
            f"{plural(len(padded), 'row')} pass{'es' * (len(padded) == 1)} with surplus pads, "
            f"which change the picture of a correct split too: pair down to {pair[0]:.1f} dB at {pair[1].name}."
        )
    return sentences


def _weakest(rows: Sequence[Row], relation: Relation) -> tuple[float, Row] | None:
    found = [(value, row) for row in rows if (value := latents_db(row.comparison(relation))) is not None]
    return min(found, key=lambda pair: pair[0]) if found else None
