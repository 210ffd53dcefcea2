"""Goldens of a run: fetched before it; those that count are the approved ones of the moment."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import ConfigError
from harness.goldens import for_run
from harness.judging.comparisons import Measurer
from harness.session import steps
from harness.types import Outcome

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


def test_a_golden_that_is_approved_meanwhile_is_the_one_that_counts(bench: Any, repaint: Any) -> None:
    """Descriptions and pictures are never of two goldens."""
    text = bench.matrix_file().read_text()
    bench.approved(text)
    folder = bench.drawn(text, edit=repaint())
    measurer = Measurer(folder)
    assert steps.conclude(folder, measurer).exit_code == 1
    bench.approved(text, edit=repaint())
    report = steps.conclude(folder, measurer)
    assert report.rows == steps.conclude(folder).rows
    assert report.exit_code == 0
