"""Goldens of a run: fetched before it, and compared ahead of the report with the same result."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.goldens import for_run, golden
from harness.goldens.for_run import GoldensAhead
from harness.judging.comparisons import Measurer
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome, Relation

from .remote import Remote, go_offline, outcomes


class TestFetch:
    def test_goldens_are_fetched_before_anything_is_drawn(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is drawn takes hours: a network that fails meanwhile must not cost the report."""
        pin = remote.approve(*remote.run())
        folder = remote.drawn(pin)
        go_offline(remote, monkeypatch)
        assert outcomes(steps.conclude(folder)) == {Outcome.PASS}

    def test_an_altered_golden_is_found_before_anything_is_drawn_too(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pin = remote.approve(*remote.run())
        for path in remote.files().values():
            if path.endswith("image.png"):
                remote.fs.pipe_file(path, b"painted over")
        folder = remote.drawn(pin)
        go_offline(remote, monkeypatch)
        report = steps.conclude(folder)
        assert (outcomes(report), report.exit_code) == ({Outcome.FAIL}, 1)
        assert "image.png: does not match" in report.rows[0].verdict.sentence  # type: ignore[union-attr]

    def test_planning_leaves_the_store_alone(self, remote: Remote) -> None:
        """Also where the pin is wrong: nothing is held to it."""
        matrix, _ = steps.prepare(remote.bench.matrix_file(remote.text("sha256:" + "0" * 64)))
        with pytest.raises(ConfigError):
            for_run.fetch(matrix)


def measured_ahead(folder: RunFolder) -> Measurer:
    """A measurer that has compared every row with its golden, before anything else."""
    measurer, goldens, runs = Measurer(folder), GoldensAhead(folder), folder.runs()
    for row in folder.plan.rows:
        for digest in row.runs.values():
            measurer.add_run(runs[digest])
        goldens(row, runs, measurer)
    return measurer


TO_GOLDENS = {Relation.GOLDEN_BASELINE, Relation.GOLDEN_CANDIDATE}


def test_what_was_compared_with_goldens_ahead_needs_no_sample_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.approved(bench.matrix_file().read_text())
    folder = bench.drawn()
    expected = steps.conclude(folder)
    compared = [comparison.relation for row in expected.rows for comparison in row.comparisons]
    assert set(compared) >= TO_GOLDENS
    measurer = measured_ahead(folder)
    for row in folder.plan.rows:
        measurer.of_row(row, folder.runs())
    monkeypatch.setattr(type(folder), "sample", None)
    monkeypatch.setattr(golden, "load_sample", None)
    assert steps.conclude(folder, measurer).rows == expected.rows


def test_without_goldens_there_is_nothing_to_compare_ahead(bench: Any) -> None:
    folder = bench.drawn()
    measurer = measured_ahead(folder)
    report = steps.conclude(folder, measurer)
    assert {row.verdict.outcome for row in report.rows if row.verdict} == {"no_golden"}


def test_a_store_that_is_gone_is_told_when_rows_are_judged(bench: Any) -> None:
    """Ahead nothing is said of it, and nothing breaks."""
    bench.approved(bench.matrix_file().read_text())
    folder = bench.drawn()
    shutil.rmtree(folder.plan.matrix.golden_store)
    measurer = measured_ahead(folder)
    assert steps.conclude(folder, measurer).rows == steps.conclude(folder).rows


def test_a_golden_that_is_approved_meanwhile_is_the_one_that_counts(bench: Any, repaint: Any) -> None:
    """What was compared ahead is compared anew: descriptions and pictures are never of two goldens."""
    text = bench.matrix_file().read_text()
    bench.approved(text)
    folder = bench.drawn(text, edit=repaint())
    measurer = measured_ahead(folder)
    assert steps.conclude(folder).exit_code == 1
    bench.approved(text, edit=repaint())
    report = steps.conclude(folder, measurer)
    assert report.rows == steps.conclude(folder).rows
    assert report.exit_code == 0


def test_what_goes_wrong_ahead_costs_nothing_but_time(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.approved(bench.matrix_file().read_text())
    folder = bench.drawn()
    with monkeypatch.context() as patched:
        patched.setattr(golden, "load_sample", lambda *arguments: (_ for _ in ()).throw(FileNotFoundError("swapped")))
        measurer = measured_ahead(folder)
    assert steps.conclude(folder, measurer).exit_code == 0
