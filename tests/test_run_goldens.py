"""Goldens of a run: compared ahead of the report, with the same result."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from harness import golden, session
from harness.measure import AheadMeasurer
from harness.run_goldens import GoldensAhead
from harness.types import Relation

TO_GOLDENS = {Relation.GOLDEN_BASELINE, Relation.GOLDEN_CANDIDATE}


def test_what_was_compared_with_goldens_ahead_needs_no_sample_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.approved(bench.matrix_file().read_text())
    folder = bench.drawn()
    expected = session.conclude(folder)
    compared = [comparison.relation for row in expected.rows for comparison in row.comparisons]
    assert set(compared) >= TO_GOLDENS
    measurer = AheadMeasurer(folder, GoldensAhead(folder)).wait()
    monkeypatch.setattr(type(folder), "sample", None)
    monkeypatch.setattr(golden, "load_sample", None)
    assert session.conclude(folder, measurer).rows == expected.rows


def test_without_goldens_there_is_nothing_to_compare_ahead(bench: Any) -> None:
    folder = bench.drawn()
    measurer = AheadMeasurer(folder, GoldensAhead(folder)).wait()
    report = session.conclude(folder, measurer)
    assert {row.verdict.outcome for row in report.rows if row.verdict} == {"no_golden"}


def test_a_store_that_is_gone_is_told_when_rows_are_judged(bench: Any) -> None:
    """Ahead nothing is said of it, and nothing breaks."""
    bench.approved(bench.matrix_file().read_text())
    folder = bench.drawn()
    shutil.rmtree(folder.plan.matrix.golden_store)
    measurer = AheadMeasurer(folder, GoldensAhead(folder)).wait()
    assert session.conclude(folder, measurer).rows == session.conclude(folder).rows
