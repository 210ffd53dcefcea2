"""Rows whose ranks exchanged nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness import codec
from harness.judging.engaged import problem
from harness.session import steps
from harness.types import Case, Row, Run, RunSpec, Size, Variant

CASE = Case("c", "m", Size(144, 144), ("x",))
LEAST = 2 * 81


@pytest.mark.parametrize(
    ("degree", "counters", "idle"),
    [
        (2, {"collective_bytes": LEAST - 1}, True),
        (2, {"collective_bytes": 0, "exchanged_bytes": 0}, True),
        (2, {"collective_bytes": LEAST}, False),
        (2, {"collective_bytes": 0, "exchanged_bytes": LEAST}, False),  # replayed graphs pass Python by
        (2, {}, False),  # nobody counts
        (1, {"collective_bytes": 0}, False),
    ],
)
def test_a_split_exchanges_at_least_a_value_for_each_token(
    degree: int, counters: Mapping[str, int], idle: bool
) -> None:
    row = Row(CASE, Variant("theirs", degree), runs={"candidate": "c"})
    run = Run(RunSpec(CASE, "theirs", "", "w", "s", ulysses=degree), "ok", counters=counters)
    said = problem(row, {"c": run})
    assert (said is not None) is idle
    if said:
        assert said.startswith("Nothing was split: the 2 ranks sent one another ")


def test_such_a_row_fails_with_a_cause_of_its_own_in_every_report(bench: Any) -> None:
    folder = bench.drawn(golden="off")
    for row in folder.plan.rows:
        digest = row.runs["candidate"]
        idle = replace(folder.run(digest), counters={"collective_bytes": 0})
        codec.write_json(folder.path / "runs" / digest / "run.json", idle)
    report = steps.conclude(folder)
    assert {row.verdict.cause for row in report.rows if row.verdict} == {"not engaged"}
    assert report.exit_code == 1
    for name, page in steps.write_reports(report, folder.path).items():
        if name in ("html", "markdown", "junit"):
            assert page.is_file()
    assert "Nothing was split" in (folder.path / "report.json").read_text(encoding="utf-8")
