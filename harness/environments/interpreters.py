"""Interpreters of engines' environments: whether one can serve, and what is installed there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from harness.environments import child_process, facts
from harness.environments.facts import Facts
from harness.errors import UsageError

TIMEOUT_S = 120.0
"""Reading metadata takes a tenth of a second, on a slow network disk many."""


def facts_of(engine: str, python: str = "") -> Facts:
    """Return the facts of an engine's environment.

    Parameters
    ----------
    engine
        Name of the engine.
    python
        Interpreter of another environment; empty for this one.

    Raises
    ------
    UsageError
        If it cannot serve: it is not there, no Python, too old, or lacks what a rank or the engine needs.
    """
    return _asked(engine, python) if python else facts.collect(engine)


@cache
def _asked(engine: str, python: str) -> Facts:
    where = f"interpreter of {engine}: {python}"
    if problem := _problem(Path(python)):
        raise UsageError(f"{where}: {problem}")
    command = child_process.command("harness.environments.facts", engine, python=python)
    try:
        asked = subprocess.run(
            command,
            env=child_process.environment(python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
        found = facts.decode(asked.stdout.splitlines()[-1]) if asked.returncode == 0 else None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{where}: does not answer within {TIMEOUT_S:.0f} s; is it a Python?") from None
    except (OSError, ValueError, IndexError):
        raise UsageError(f"{where}: is no Python; name the python of an environment") from None
    if found is None:
        reason = (asked.stderr.strip().splitlines() or [f"it ended with exit code {asked.returncode}"])[-1]
        raise UsageError(f"{where}: cannot be used: {reason}")
    if found.lacking:
        raise UsageError(f"{where}: {lacks(found.lacking, python)}")
    return found


def lacks(packages: Sequence[str], python: str) -> str:
    """Say that an environment lacks distributions, and how they are installed."""
    names = " ".join(packages)
    return f"lacks {names}; install with: {python} -m pip install {names}"


def _problem(path: Path) -> str | None:
    """Say why a path cannot be an interpreter, and what to write instead."""
    if path.is_dir():
        inside = next((path / name for name in ("bin/python", ".venv/bin/python") if (path / name).is_file()), None)
        return f"is a folder; write {inside or path / 'bin' / 'python'}"
    if not path.is_file():
        return "there is no such file; name the python of an environment, such as ~/sglang/.venv/bin/python"
    if not os.access(path, os.X_OK):
        return "is not executable; name the python of an environment"
    return None
