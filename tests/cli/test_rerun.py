"""``rerun``: rows of a run drawn anew, into a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.runs.folder import read_report
from tests.command_line import CASE, HEAD, OFF, VARIANT, Cli, only_run

TWO_ROWS = HEAD + OFF + CASE.replace('"128x128"', '["128x128", "144x144"]') + VARIANT


def test_only_what_failed_is_drawn_anew(cli: Cli, judged: Any, repaint: Any, tmp_path: Path) -> None:
    damaged = repaint("candidate")

    def one(spec: Any, drawing: Any) -> None:
        if spec.case.name == "144x144":
            damaged(spec, drawing)

    first, report = judged(TWO_ROWS, one)
    assert [row.verdict.outcome for row in report.rows] == ["pass", "fail"]
    done = cli("rerun", first, "--failed", "--out", tmp_path / "again")
    assert (done.code, done.out.splitlines()[0]) == (0, "1 of 2 rows are drawn anew"), done.out + done.err
    again = read_report(only_run(tmp_path / "again"))
    assert [(row.name, row.verdict and row.verdict.outcome) for row in again.rows] == [("144x144/fake-u2-h", "pass")]
    assert (again.matrix.path, again.complete) == (report.matrix.path, True)


def test_of_a_run_that_passes_nothing_is_drawn(cli: Cli, judged: Any, tmp_path: Path) -> None:
    first, _ = judged(TWO_ROWS)
    done = cli("rerun", first, "--failed", "--out", tmp_path / "again")
    assert (done.code, done.out) == (0, f"{first}: no row fails; nothing is drawn\n")
    assert not (tmp_path / "again").exists()
