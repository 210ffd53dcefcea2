"""``rerun``: rows of a run drawn anew, into a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.runs.folder import read_report
from tests.command_line import CASE, HEAD, OFF, VARIANT, Cli, Write, only_run

FAULTY = VARIANT + 'fault = "swapped-ranks"\n'


def test_only_what_failed_is_drawn_anew(cli: Cli, write: Write, tmp_path: Path) -> None:
    cases = CASE.replace('"128x128"', '["128x128", "144x144"]')
    matrix = write(HEAD + OFF + cases + VARIANT + FAULTY + 'cases = ["144x144"]\n')
    assert cli("run", matrix, "--out", tmp_path / "out", "--no-explain").code == 1
    first = only_run(tmp_path / "out")
    done = cli("rerun", first, "--failed", "--out", tmp_path / "again")
    assert done.code == 1
    assert done.out.startswith("1 of 3 rows are drawn anew\n")
    again = only_run(tmp_path / "again")
    report = read_report(again)
    assert [row.name for row in report.rows] == ["144x144/fake-u2-h-swapped-ranks"]
    assert report.matrix.path == read_report(first).matrix.path
    assert report.complete


def test_of_a_run_that_passes_nothing_is_drawn(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    done = cli("rerun", fakes.run, "--failed", "--out", tmp_path / "again")
    assert (done.code, done.out) == (0, f"{fakes.run}: no row fails; nothing is drawn\n")
    assert not (tmp_path / "again").exists()
