"""The benchmark that breaks runs from outside, on runs without a model: as a program, on real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "breakdowns.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="it finds processes in /proc")


def test_two_runs_at_once_a_rank_that_is_stopped_and_damaged_files() -> None:
    """The other breakdowns of this kind are in tests/e2e; what needs a model or a GPU is left to the program."""
    arguments = ["--model", "fake", "--hang-s", "2", "--only", "together", "--only", "hung", "--only", "damaged"]
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "no answer within 2 s from rank 1; rank 1 does not run: T (stopped)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("all well, ")


def test_a_run_that_hangs_costs_its_own_breakdown_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bench: Any
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import _outside  # type: ignore[import-not-found]
    import breakdowns

    slow = bench.matrix_file(bench.matrix_file().read_text() + "options = { step_s = 600.0 }\n")
    machine = SimpleNamespace(device="cpu")
    hangs, lacks = breakdowns.Checks("hangs"), breakdowns.Checks("lacks")
    monkeypatch.setattr(_outside, "DEADLINE_S", 1.0)
    run = _outside.Command(slow, "--out", tmp_path / "reports", "--golden", "off", log=tmp_path / "log.txt")
    with breakdowns._nothing_left(machine, hangs):
        run.wait()
    assert run.process.returncode == -signal.SIGKILL
    assert run.left() == 0
    with breakdowns._nothing_left(machine, lacks):
        breakdowns.outcomes(bench.drawn(golden="off"))
    for checks, said in ((hangs, "the run did not end within 1 s and was killed"), (lacks, "left no report.json")):
        ((what, expected, found, ok),) = checks.lines
        assert (what, expected, ok) == ("went as planned", "yes", False)
        assert found.startswith("no: RuntimeError: ")
        assert said in found


def test_what_does_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import breakdowns  # type: ignore[import-not-found]

    checks = breakdowns.Checks("killed")
    checks.holds("exit code", 3, 3)
    checks.at_most("seconds", 2.0, 1.9, "s")
    assert checks.ok
    checks.at_most("seconds", 2.0, 2.1, "s")
    assert not checks.ok
    assert [line[3] for line in checks.lines] == [True, True, False]
