"""``issue.md``: the text of an issue about a run that is not well; its first line is the title, as in a commit."""

from __future__ import annotations

from pathlib import Path

from harness.files import write_text
from harness.plugins import Reporter
from harness.reporters._story import Finding, findings, headline
from harness.reporters._words import EXIT_WORDS, counts, outcome_word
from harness.reporting.escape import escape
from harness.types import Report

MAX_TITLE = 200
"""GitHub takes 256 characters."""

MAX_FINDINGS = 10
MAX_ROWS = 20
MAX_SENTENCE = 600


class IssueReporter(Reporter):
    """Writes what broke, where and why, and how to see it again; of a green run, that it is green."""

    name = "issue"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``issue.md`` and return its path."""
        title = " ".join(f"{report.matrix.name}: {headline(report)}".split())
        title = title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 2] + " …"
        return write_text(folder / "issue.md", "\n".join([title, "", *_body(report)]) + "\n")


def _body(report: Report) -> list[str]:
    tally = ", ".join(f"{number} {outcome_word(outcome)}" for outcome, number in counts(report.rows))
    lines = [
        f"Run `{report.name}` of `{report.matrix.path}` on {escape(report.platform)}, started "
        f"{escape(report.started_at)}: {tally or 'no rows'}. Exit code {report.exit_code}: "
        f"{EXIT_WORDS.get(report.exit_code, 'unknown')}.",
        "",
    ]
    lines += [] if report.complete else ["**The run did not finish.**", ""]
    found = findings(report)
    for finding in found[:MAX_FINDINGS]:
        lines += _told(finding)
    left = len(found) - MAX_FINDINGS
    lines += [f"And {left} more.", ""] if left > 0 else []
    lines += [f"- {escape(note)}" for note in report.notes]
    lines += [
        "",
        "Seen again by hand, on a machine with the same devices:",
        "",
        f"    sp-harness run {report.matrix.path}",
        "",
        f"Drawn with {escape(', '.join(f'{name} {version}' for name, version in report.environment.items()))}.",
    ]
    return lines


def _told(finding: Finding) -> list[str]:
    cause = f", cause: **{escape(finding.cause)}**" if finding.cause else ""
    why = finding.why if len(finding.why) <= MAX_SENTENCE else finding.why[:MAX_SENTENCE] + " …"
    rows = ", ".join(f"`{row.name}`" for row in finding.rows[:MAX_ROWS])
    rest = len(finding.rows) - MAX_ROWS
    return [
        f"### {escape(finding.what)}",
        "",
        f"{escape(finding.where)}{cause}. {escape(why)}",
        "",
        f"Rows: {rows}{f' and {rest} more' if rest > 0 else ''}.",
        "",
    ]
