"""The benchmark that breaks runs from outside, on runs without a model: as a program, on real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "breakdowns.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="it finds processes in /proc")


def test_two_runs_at_once_and_a_rank_that_is_stopped() -> None:
    """The other breakdowns of this kind are in tests/e2e; what needs a model or a GPU is left to the program."""
    arguments = ["--model", "fake", "--hang-s", "2", "--only", "together", "--only", "hung"]
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "no answer within 2 s from rank 1; rank 1 does not run: T (stopped)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("all well, ")


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
