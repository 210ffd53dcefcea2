"""issue.md: a title on the first line, then what broke, where and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.reporters.issue import MAX_TITLE, IssueReporter
from harness.types import Outcome, Report, Verdict


def text_of(sample: Any, report: Report | None = None) -> str:
    return IssueReporter().write(report or sample.report, sample.folder).read_text(encoding="utf-8")


def test_a_red_run_names_what_broke_where_and_why(mixed: Any) -> None:
    title, empty, *rest = text_of(mixed).splitlines()
    assert title == ("sample: Splitting damages the picture at 128x128 on w, and 3 more rows do not pass.")
    assert empty == ""
    body = "\n".join(rest)
    assert "cause: **ranks swapped in the gather**" in body
    assert "Rows: `128x128/spatial-u2-w`." in body
    assert "    sp-harness run matrices/sample.toml" in body
    assert "torch 2.13.0" in body


def test_a_green_run_says_so(good: Any) -> None:
    title, *_ = text_of(good).splitlines()
    assert title == "sample: All 3 rows judged pass: splitting itself costs nothing."


def test_a_red_run_of_which_nothing_is_broken_says_what_happened(good: Any) -> None:
    report = replace(good.report, exit_code=3)
    unfinished = replace(report, complete=False, rows=(*report.rows[:2], replace(report.rows[2], verdict=None)))
    assert text_of(good, unfinished).startswith("sample: The run did not finish: 2 rows pass, 1 row not.\n")
    skip = Verdict(Outcome.SKIP, "the engine fake is not installed")
    row = replace(report.rows[2], verdict=skip, variant=replace(report.rows[2].variant, required=True))
    title = text_of(good, replace(report, rows=(*report.rows[:2], row))).splitlines()[0]
    place = f"{row.case.name} on {row.variant.axis}"
    assert title == f"sample: 1 required row was skipped, at {place}: the engine fake is not installed"


def test_a_title_is_one_line_and_short_enough(mixed: Any) -> None:
    report = mixed.report
    long = replace(report, matrix=replace(report.matrix, name="long " * 100))
    assert len(text_of(mixed, long).splitlines()[0]) == MAX_TITLE


def test_a_run_that_did_not_finish(mixed: Any) -> None:
    assert "**The run did not finish.**" in text_of(mixed, replace(mixed.report, complete=False))


def test_no_text_of_others_is_markup(mixed: Any) -> None:
    """Sentences hold what an engine raised."""
    assert "<boom>" not in text_of(mixed)
