"""Command lines of our own programs: with the code that runs here, whatever lies in the working directory."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

HERE = str(Path(__file__).absolute().parents[2])
"""Folder of the package that runs: a checkout, or where distributions are installed."""


def command(module: str, *arguments: str) -> list[str]:
    """Command line of one of our modules; ``-m`` alone would look for it in the working directory first."""
    return [sys.executable, "-P", "-m", module, *arguments]


def search_path() -> dict[str, str]:
    """``PYTHONPATH`` with which a child finds the package that runs here; empty where it does so anyway.

    A checkout need not be installed. What is installed is not named: before the standard library it could hide
    modules of it.
    """
    if HERE in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != HERE]
    return {"PYTHONPATH": os.pathsep.join([HERE, *others])}
