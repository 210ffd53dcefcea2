"""``sp-harness benign``: healthy rows at random, and what their failing would mean."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command_line import invoke, only_run


def test_rows_are_drawn_counted_and_finished(tmp_path: Path) -> None:
    done = invoke("benign", "--rows", 5, "--model", "fake", "--out", tmp_path)
    assert done.code == 0, done.out + done.err
    assert "float32: 0 of 4 healthy rows failed" in done.out
    assert "bfloat16: 0 of 1 healthy rows failed" in done.out
    assert "a run of the PR matrix" in done.out
    folder = only_run(tmp_path)
    rates = json.loads((folder / "benign.json").read_bytes())
    assert [(rate["rows"], rate["failed"]) for rate in rates] == [(4, []), (1, [])]
    again = invoke("benign", "--resume", folder, "--calibrate", "--into", tmp_path / "calibrations", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == rates
    assert "of 200 needed; draw more rows" in again.err
    assert not (tmp_path / "calibrations").exists()
