"""What splitting costs, a line for each cut."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import pytest

from harness.reporting import cost_table
from harness.reporting.cost_table import HEADS, Line
from harness.session import steps
from harness.types import Pads, Relation, Report, Times


@pytest.fixture
def report(bench: Any) -> Report:
    made: Report = steps.conclude(bench.drawn(golden="off"))
    return made


def by_cut(report: Report) -> dict[tuple[str, str], Line]:
    return {(line.case, line.axis): line for line in cost_table.lines(report)}


def test_a_line_for_each_cut_and_none_for_the_axis_that_auto_chose(report: Report) -> None:
    assert len(report.rows) == 6
    assert list(by_cut(report)) == [("128x128", "h"), ("128x128", "w"), ("144x144", "h"), ("144x144", "w")]


def test_pads_shards_and_figures_are_those_of_the_row(report: Report) -> None:
    line = by_cut(report)["144x144", "h"]
    row = next(row for row in report.rows if row.name == "144x144/fake-u2-h")
    assert (line.split, line.layout, line.shards, line.verdict) == ("fake-u2", "aligned", "5,4", "pass")
    assert row.plan is not None
    assert line.pads == f"{row.plan.pad_tokens} / 15"  # 81 tokens on one device are padded to 96
    pair = row.comparison(Relation.PAIR)
    assert pair is not None
    latents, image = pair.figure("psnr", "latents"), pair.figure("psnr", "image")
    assert latents is not None
    assert image is not None
    assert line.pair == f"{latents.value:.1f} / {image.value:.1f}"
    assert line.exchange == "exact / exact"
    assert line.surplus == line.pair  # pads are all that differs


def test_seconds_and_memory_go_from_the_single_device_to_the_split(report: Report) -> None:
    row = next(row for row in report.rows if row.name == "128x128/fake-u2-w")
    runs = dict(report.runs)
    single, split = row.runs["baseline"], row.runs["candidate"]
    runs[single] = replace(runs[single], times=Times(steps_s=(9.0, 0.14, 0.14)), peak_memory_bytes=(24 * 10**9,))
    runs[split] = replace(
        runs[split], times=Times(steps_s=(9.0, 0.09, 0.09)), peak_memory_bytes=(12 * 10**9, 13 * 10**9)
    )
    line = by_cut(replace(report, runs=runs))["128x128", "w"]
    assert (line.step, line.memory) == ("0.140 -> 0.090", "24.0 -> 13.0")


def test_a_row_that_was_not_drawn_has_no_line(report: Report) -> None:
    row = next(row for row in report.rows if row.name == "128x128/fake-u2-w")
    runs = {digest: run for digest, run in report.runs.items() if digest != row.runs["candidate"]}
    assert ("128x128", "w") not in by_cut(replace(report, runs=runs))


def test_markdown_has_every_column(report: Report) -> None:
    lines = cost_table.lines(report)
    head, rule, first, *_ = cost_table.markdown(lines).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == list(HEADS.values())
    assert rule.count("---") == len(HEADS)
    assert tuple(cell.strip() for cell in first.strip("|").split("|")) == astuple(lines[0])


def test_an_engine_that_cuts_no_picture_has_a_line(report: Report) -> None:
    row = next(row for row in report.rows if row.name == "144x144/fake-u2-h")
    flat = replace(row, plan=None, choice=None, pads=Pads(47, 15), variant=replace(row.variant, axis="none"))
    (line,) = cost_table.lines(replace(report, rows=(flat,)))
    assert (line.axis, line.shards, line.pads) == ("none", cost_table.NOTHING, "47 / 15")
    (unknown,) = cost_table.lines(replace(report, rows=(replace(flat, pads=None),)))
    assert unknown.pads == cost_table.NOTHING
