"""Verified pairs of engine and feature, and the page for an engine's maintainers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.reporting import engine_table
from harness.reporting.cost_table import NOTHING
from harness.session import steps
from harness.types import Report

MATRIX = """
schema = 1
name = "bench"
model = "fake"
steps = 2

[[case]]
size = ["128x128", "144x144"]
prompt = "a red ball"

[[case]]
name = "two"
size = "128x128"
prompt = ["a red ball", "a blue ball"]

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
fault = "off-by-one-token"
cases = ["144x144"]

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
environment = "absent"
cases = ["144x144"]
"""


@pytest.fixture
def report(bench: Any) -> Report:
    made: Report = steps.conclude(bench.drawn(MATRIX, golden="off"))
    tokens = {1: (3,), 2: (3, 40)}
    runs = {
        digest: replace(run, versions={"numpy": "9.9"}, caption_tokens=tokens[run.spec.case.num_images])
        for digest, run in made.runs.items()
    }
    return replace(made, runs=runs)


def test_sizes_are_collected_by_release_and_feature_where_they_pass_and_where_they_fail(report: Report) -> None:
    assert engine_table.verified(report).splitlines()[2:] == [
        f"| fake | numpy 9.9 | one picture | 2 | 128x128, 144x144 | {NOTHING} |",
        f"| fake | numpy 9.9 | with the bug off-by-one-token | 2 | {NOTHING} | 144x144 (split) |",
        f"| fake | numpy 9.9 | batch of 2, captions of different length | 2 | 128x128 | {NOTHING} |",
    ]


def test_a_page_has_a_line_for_each_row_and_says_why_one_does_not_pass(report: Report) -> None:
    page = engine_table.page(report, "fake")
    lines = page.splitlines()
    assert lines[0] == "# fake under sp-harness"
    assert "## numpy 9.9" in lines
    (sound,) = (line.split(" | ") for line in lines if line.startswith("| 144x144 | one picture | 2 | pass |"))
    assert sound[4:7] == [NOTHING, "exact", "exact"]
    assert sum(line.startswith(("| 128x128 |", "| 144x144 |")) for line in lines) == len(report.rows)
    (failing,) = (line for line in lines if line.startswith("- `144x144/fake-u2-h-off-by-one-token`: "))
    assert "asked for at least" in failing
    (skipped,) = (line for line in lines if line.startswith("- `144x144/fake@absent-u2-h`: "))
    assert "has no environment" in skipped
