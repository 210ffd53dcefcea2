"""``summary.md``: the comment under a pull request."""

from __future__ import annotations

from pathlib import Path

from harness.diagnose.sentence import describe_image
from harness.files import write_text
from harness.plugins import Reporter
from harness.reporters._costs import cache_note, megabytes, request_text, seconds
from harness.reporters._layouts import LEAD, meaning, side_by_side
from harness.reporters._story import findings, headline, summary_sentences
from harness.reporters._words import (
    COLUMNS,
    EXIT_WORDS,
    FAILING,
    FIGURE_WORDS,
    IMAGE_COLUMNS,
    counts,
    figure_text,
    legend_of,
    outcome_of,
    outcome_word,
    pads_text,
    sentence_of,
    shards_text,
    worst_first,
)
from harness.reporting.escape import escape
from harness.types import Outcome, Report, Row

MAX_CHARACTERS = 60_000
"""A comment on GitHub ends at 65,536."""

MAX_SENTENCE = 600
MAX_COMPARISONS = 12
"""Lines of the table of both layouts."""

MAX_EXPLAINED = 8
"""Rows whose evidence is quoted."""

MARKS = {
    Outcome.PASS: "✅",
    Outcome.FAIL: "❌",
    Outcome.ERROR: "💥",
    Outcome.TIMEOUT: "⏱️",
    Outcome.NO_GOLDEN: "❔",
    Outcome.SKIP: "⏭️",
    None: "▫️",
}

FIGURES = (*(name for name, _ in COLUMNS), *(f"{name} dB / SSIM" for name in IMAGE_COLUMNS))
HEADER = f"| verdict | case | size | axis | shards | pads split / single | {' | '.join(FIGURES)} |"


class MarkdownReporter(Reporter):
    """Writes the headline, what broke, one table line per row, and a legend; failing rows first."""

    name = "markdown"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``summary.md`` and return its path."""
        head, foot = f"{_head(report)}\n{_evidence(report)}{_layouts(report)}", _foot(report)
        room = MAX_CHARACTERS - len(head) - len(foot) - 200
        return write_text(folder / "summary.md", f"{head}{_table(report, worst_first(report.rows), room)}\n{foot}")


def _shortened(text: str) -> str:
    return escape(text if len(text) <= MAX_SENTENCE else text[:MAX_SENTENCE] + " …")


def _head(report: Report) -> str:
    tally = ", ".join(f"{number} {outcome_word(outcome)}" for outcome, number in counts(report.rows))
    meaning = EXIT_WORDS.get(report.exit_code, "unknown")
    lines = [f"## {escape(headline(report))}", ""]
    if not report.complete:
        lines += ["**This report is partial: the run did not finish.**", ""]
    lines += [
        f"Matrix **{escape(report.matrix.name)}**, {escape(report.platform)}: {tally or 'no rows'}. "
        f"Exit code {report.exit_code}: {meaning}.",
        "",
    ]
    lines += [f"- {escape(note)}" for note in (*report.notes, *summary_sentences(report))]
    lines.append("")
    for finding in findings(report)[:20]:
        cause = f" (cause: {_shortened(finding.cause)})" if finding.cause else ""
        what = f"**{escape(finding.what)}** at {_shortened(finding.where)}{cause}"
        lines += [" ".join(filter(None, (f"{what}: {_shortened(finding.why)}", finding.key))), ""]
    return "\n".join(lines)


def _evidence(report: Report) -> str:
    """Section on the rows that were explained."""
    explained = [row for row in report.rows if row.explanation and row.verdict and row.verdict.evidence]
    if not explained:
        return ""
    lines = ["<details><summary>What was seen inside</summary>", ""]
    for row in explained[:MAX_EXPLAINED]:
        verdict = row.verdict
        assert verdict is not None
        lines += [f"**{escape(row.name)}**, cause: {escape(verdict.cause or 'unknown')}", ""]
        lines += [*(f"- {_shortened(line)}" for line in verdict.evidence), ""]
    left = len(explained) - MAX_EXPLAINED
    lines += [f"{left} more in `index.html`.", ""] if left > 0 else []
    return "\n".join([*lines, "</details>", "", ""])


def _layouts(report: Report) -> str:
    """Both layouts side by side, in reports that hold both."""
    found = side_by_side(report)
    if not found:
        return ""
    lines = [
        f"**aligned and exact side by side.** {meaning(found)} {LEAD}",
        "",
        "| case | ulysses x ring | axis | pads split / single | MB exchanged | s a step | pair |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for both in found[:MAX_COMPARISONS]:
        aligned, exact, variant = both.aligned, both.exact, both.exact.row.variant
        cells = [
            escape(" ".join(filter(None, (exact.row.case.name, both.others)))),
            f"{variant.ulysses} x {variant.ring}",
            both.axis,
            f"{aligned.pads} → {exact.pads}",
            f"{megabytes(aligned.sent_bytes)} → {megabytes(exact.sent_bytes)}",
            f"{seconds(aligned.step_s)} → {seconds(exact.step_s)}",
            f"{aligned.pair} → {exact.pair}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    left = len(found) - MAX_COMPARISONS
    note = f"Each cell: aligned → exact.{f' {left} more in `index.html`.' if left > 0 else ''}"
    return "\n".join([*lines, "", note, "", ""])


def _table(report: Report, rows: list[Row], room: int) -> str:
    """Lay out the rows, as many as there is room for, and say how many are left out."""
    lines = [HEADER, "|" + " --- |" * HEADER.count(" | ") + " --- |"]
    used = sum(map(len, lines))
    for done, row in enumerate(rows):
        line = _line(report, row)
        used += len(line) + 1
        if used > room:
            left = len(rows) - done
            lines += ["", f"{left} of {len(rows)} rows are left out here; `index.html` has them all."]
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _line(report: Report, row: Row) -> str:
    outcome = outcome_of(row)
    sentence = f"<br>{_shortened(sentence_of(row))}" if outcome in FAILING or outcome is Outcome.SKIP else ""
    notes = "".join(f"<br>{escape(note)}" for note in (request_text(report, row), cache_note(row)) if note)
    asked = row.variant.axis
    used = f" → {row.plan.axis}" if row.plan and row.plan.axis != asked else ""
    cells = [
        f"{MARKS[outcome]} {outcome_word(outcome)}",
        f"{escape(row.case.name)} ({escape(row.variant.label)}){notes}{sentence}",
        str(row.case.size),
        f"{asked}{used}",
        escape(shards_text(row.plan)),
        escape(pads_text(row)),
        *(figure_text(row.comparison(relation)) for _, relation in COLUMNS),
        *(describe_image(row.comparison(relation)) for relation in IMAGE_COLUMNS.values()),
    ]
    return f"| {' | '.join(cells)} |"


def _foot(report: Report) -> str:
    lines = ["<details><summary>How to read this</summary>", "", FIGURE_WORDS, ""]
    lines += [f"- **{name}**: {words}" for name, words in legend_of(report)]
    lines += [
        "- **shards**: image tokens (16 px) of each rank along the axis. **pads**: pad tokens of the split run / "
        "of one device (surplus).",
        "",
        "</details>",
        "",
        f"Started {escape(report.started_at)}, took {report.wall_s:.0f} s.",
        "",
    ]
    return "\n".join(lines)
