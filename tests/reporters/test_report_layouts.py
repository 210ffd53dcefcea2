"""Both layouts side by side, the error step by step, bytes and seconds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from harness.judging.judge import judge
from harness.reporters._layouts import meaning, side_by_side
from harness.reporters._steps import grows_most
from harness.types import Outcome, Relation, Size

from .conftest import edge
from .featured import SQUARE, STEPS, add_row, flat, write
from .test_report_html import pages


@pytest.fixture
def both(new_sample: Any) -> Any:
    """One case under both layouts, on h and on auto, which takes h."""
    sample = new_sample()
    for axis in ("h", "auto"):
        for layout in ("aligned", "exact"):
            add_row(sample, SQUARE, layout, axis=axis)
    return sample


# ---------------------------------------------------------------- layouts


def test_index_sets_both_layouts_side_by_side(both: Any) -> None:
    text = flat(pages(both)["index.html"].text)
    section = text.partition("Aligned and exact side by side")[2].partition("How to read this")[0]
    line = "square 2 1 h 47 / 15 (+32) 15 / 15 (+0) 24.5 dB exact 8.00 6.00 0.400 0.200"
    assert line in section
    assert section.count("square") == 1, "auto shares the runs of h"
    assert "is 24.5 dB for aligned and exact for exact" in section
    assert "in the median of the 1 with surplus pads, exact sends 25 % less and takes 50 % less time a step" in section


def test_no_side_by_side_where_one_layout_is_missing(both: Any) -> None:
    both.rows = [row for row in both.rows if row.variant.layout == "exact"]
    assert "side by side" not in pages(both)["index.html"].text
    assert "side by side" not in write("markdown", both).read_text()


def test_a_broken_row_says_nothing_about_layouts_and_is_marked(both: Any) -> None:
    both.rows = both.rows[:2]
    verdict = both.rows[0].verdict
    both.rows[0] = replace(both.rows[0], verdict=replace(verdict, outcome=Outcome.FAIL))
    lines = side_by_side(both.report)
    assert (lines[0].aligned.pair_state, lines[0].exact.pair_state) == ("bad", "shown")
    assert "dB" not in meaning(lines)


def test_the_worst_comparison_comes_first_and_many_fold_away(both: Any) -> None:
    square, both.rows = both.rows[:2], []
    for number in range(13):
        other = replace(SQUARE, name=f"even-{number:02}", size=Size(128, 128), seed=number)
        for layout in ("aligned", "exact"):
            add_row(both, other, layout)
    both.rows += square
    assert side_by_side(both.report)[0].aligned.row.case.name == "square"
    index = pages(both)["index.html"]
    assert "2 more comparisons" in index.text
    assert "even-12" in index.text.partition("2 more comparisons")[2]
    table = write("markdown", both).read_text().partition("side by side")[2].partition("| verdict")[0]
    assert len(re.findall(r"^\| (square|even)", table, re.MULTILINE)) == 12
    assert "2 more in `index.html`" in table


def test_markdown_sets_both_layouts_side_by_side(both: Any) -> None:
    text = write("markdown", both).read_text()
    assert (
        "| square | 2 x 1 | h | 47 / 15 (+32) → 15 / 15 (+0) | 8.00 → 6.00 | 0.400 → 0.200 | 24.5 dB → exact |"
    ) in text


def test_shards_show_what_each_rank_brings_to_attention(both: Any) -> None:
    index = pages(both)["index.html"]
    assert "5 | 4 64 each 47 / 15 (+32)" in flat(index.by_id["square_spatial-u2-h"])
    assert "5 | 4 45 | 51 15 / 15 (+0)" in flat(index.by_id["square_spatial-u2-h-exact"])


# ---------------------------------------------------------------- steps and costs


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ((None, 60.0, 50.0, 40.0, 36.0, 36.5), 4),
        ((30.0, 30.0, 31.0), 1),
        ((None, None, 140.0), 3),
        ((60.0, 40.0, 39.0), 2),
        ((None, None), None),
        ((), None),
    ],
)
def test_the_step_that_adds_most_error(values: tuple[float | None, ...], step: int | None) -> None:
    assert grows_most(values) == step


def test_a_row_draws_its_error_step_by_step(both: Any) -> None:
    site = pages(both)
    page = site["square_spatial-u2-h"]
    html = page.raw
    assert "Pair: the error grows most at step 3 of 4, from 44.5 dB to 27.5 dB." in html
    label = re.search(r'role="img" aria-label="([^"]*)"', html)
    assert label is not None
    assert "grows most at step 3" in label[1]
    heights = {}
    for series in ("exchange", "layout", "pair"):
        points = re.search(rf'<g class="series {series}"><polyline points="([^"]*)"', html)
        assert points is not None, series
        heights[series] = [float(point.split(",")[1]) for point in points[1].split()]
        assert len(heights[series]) == STEPS
        assert heights[series] == sorted(heights[series]), "falling decibels fall in the drawing"
    assert heights["exchange"][-1] < heights["pair"][-1] == heights["layout"][-1]
    assert "pair, step 3: 27.5 dB" in page.text
    assert "pair dB exact 44.5 27.5 24.5" in flat(page.text)
    other = site["square_spatial-u2-h-exact"].raw
    assert "Pair: equal to the last bit after every step." in other
    assert "<svg" not in other


def test_runs_that_are_one_are_equal_after_every_step(both: Any) -> None:
    add_row(both, replace(SQUARE, name="even", size=Size(128, 128)), "aligned")
    text = flat(pages(both)["even_spatial-u2-h"].text)
    assert "exchange dB exact 161.0 144.0 141.0 layout dB exact exact exact exact" in text


def test_a_failing_exchange_says_where_its_error_grows(both: Any) -> None:
    row = both.rows[0]
    comparisons = tuple(
        edge(Relation.EXCHANGE, row.runs, 21.0) if comparison.relation is Relation.EXCHANGE else comparison
        for comparison in row.comparisons
    )
    row = replace(row, comparisons=comparisons)
    both.rows[0] = replace(row, verdict=judge(row, both.runs))
    text = pages(both)["square_spatial-u2-h"].text
    assert "Exchange: the error grows most at step 3 of 4, from 41.0 dB to 24.0 dB." in text


def test_a_row_shows_bytes_and_seconds_beside_the_baseline(both: Any) -> None:
    text = flat(pages(both)["square_spatial-u2-h-exact"].text)
    assert "2 ranks exchanged 6.00 MB, 1.50 MB a step." in text
    assert "A step took 0.200 s split and 0.400 s in the baseline (0.50 times)" in text
    assert "Memory ran out" not in text


def test_a_row_that_was_drawn_without_its_graph_says_so(both: Any) -> None:
    row = next(row for row in both.rows if row.variant.layout == "exact" and row.variant.axis == "h")
    run = both.runs[row.runs["candidate"]]
    both.runs[run.spec.digest] = replace(run, counters={**run.counters, "graphs_out_of_memory": 2})
    text = flat(pages(both)["square_spatial-u2-h-exact"].text)
    assert "Memory ran out while a graph was recorded: all steps were launched one by one instead." in text


def test_csv_has_costs_and_steps(both: Any) -> None:
    frame = pd.read_csv(write("csv", both))
    pair = frame[(frame["relation"] == "pair") & (frame["axis_asked"] == "h")].set_index("layout")
    assert pair["exchanged_bytes"].to_dict() == {"aligned": 8_000_000, "exact": 6_000_000}
    assert pair["candidate_step_s"].to_dict() == {"aligned": 0.4, "exact": 0.2}
    assert pair.loc["aligned", ["step_2_db", "step_3_db", "step_4_db"]].tolist() == [44.5, 27.5, 24.5]
    assert pair["steps_exact"].to_dict() == {"aligned": 1, "exact": STEPS}
    assert pair["sequence_lengths"].to_dict() == {"aligned": "64|64", "exact": "45|51"}
    assert pd.isna(pair.loc["exact", "cache_served_steps"])
    assert (frame["ring"] == 1).all()
    assert list(frame.columns)[-5:] == ["steps_exact", *(f"step_{number}_db" for number in range(1, 5))]


def test_findings_tell_variants_of_one_place_apart(both: Any) -> None:
    for place, row in enumerate(both.rows[:2]):
        both.rows[place] = replace(row, verdict=replace(row.verdict, outcome=Outcome.ERROR, cause="crash"))
    text = pages(both)["index.html"].text
    assert "square on h (spatial-u2-h)" in text
    assert "square on h (spatial-u2-h-exact)" in text
