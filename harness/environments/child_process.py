"""Our own programs as child processes: their command lines, and whether a signal has stopped one."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from pathlib import Path

HERE = str(Path(__file__).absolute().parents[2])
"""Folder of the package that runs: a checkout, or where distributions are installed."""


def command(module: str, *arguments: str, python: str = "") -> list[str]:
    """Command line of one of our modules; ``-m`` alone would look for it in the working directory first.

    Parameters
    ----------
    module, *arguments
        The module and its arguments.
    python
        Interpreter of another environment; empty for this one.
    """
    if python:
        return [python, str(Path(HERE, "harness", "environments", "start.py")), module, *arguments]
    return [sys.executable, "-P", "-m", module, *arguments]


def stopped(pid: int) -> str:
    """Return the state of a process that a signal or a debugger has stopped, such as ``T (stopped)``, else nothing.

    Read from ``/proc``; where there is none, no process counts as stopped.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, state = line.partition(":")
            if name == "State" and state.strip()[0] in "Tt":
                return state.strip()
    return ""


def environment(python: str = "") -> dict[str, str]:
    """Environment variables of a child; those that lead an interpreter to modules are this interpreter's alone."""
    if not python:
        return dict(os.environ) | search_path()
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in own}


def search_path() -> dict[str, str]:
    """``PYTHONPATH`` with which a child finds the package that runs here; empty where it does so anyway.

    A checkout need not be installed. What is installed is not named: before the standard library it could hide
    modules of it.
    """
    if HERE in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != HERE]
    return {"PYTHONPATH": os.pathsep.join([HERE, *others])}
