"""Environments made from lock files: a virtual environment, filled by pip."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from harness import files, plugins
from harness.environments import interpreters, locks
from harness.errors import InfrastructureError, UsageError, did_you_mean
from harness.types import Device

MARKER = "sp-harness.lock"
"""Copy of the lock file, written when all of it is installed."""

Say = Callable[[str], None]


def lock_of(engine: str, version: str | None, device: Device) -> tuple[str, Path]:
    """Find a lock file.

    Parameters
    ----------
    engine
        Name of the engine.
    version
        Release; the newest by default.
    device
        Where it computes.

    Returns
    -------
    str, Path
        The release, and its lock file.

    Raises
    ------
    UsageError
        If there is none.
    """
    flag = " --cpu" if device == "cpu" else ""
    known = locks.versions(engine, device)
    if version in known or (version is None and known):
        chosen = version or known[-1]
        return chosen, locks.path_of(engine, chosen, device)
    if known:
        raise UsageError(f"--version {version}: no lock file of {engine}{flag}; {did_you_mean(str(version), known)}")
    other: Device = "cuda" if device == "cpu" else "cpu"
    if locks.versions(engine, other):
        raise UsageError(f"{engine} has lock files for {other} alone; " + ("leave out" if flag else "write") + " --cpu")
    able = sorted({name for name in plugins.names("engines") if any(locks.versions(name, d) for d in ("cpu", "cuda"))})
    raise UsageError(
        f"no lock file of {engine}; there are some of {', '.join(able)}. Any environment serves that has the engine: "
        f"name its interpreter with --python {engine}=PYTHON"
    )


def make(engine: str, lock: Path, folder: Path, say: Say) -> Path:
    """Make an environment, or go on with one that was interrupted; nothing happens where it is complete.

    Parameters
    ----------
    engine
        Name of the engine.
    lock
        Its lock file.
    folder
        Folder of the environment.
    say
        Prints a line.

    Returns
    -------
    Path
        Its interpreter.

    Raises
    ------
    UsageError
        If there is no pip here, or the folder cannot be written.
    InfrastructureError
        If pip fails: no network, a full disk.
    """
    python = folder / "bin" / "python"
    with files.writing(folder, "name another cache with SP_HARNESS_CACHE"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if _text(folder / MARKER) == lock.read_text(encoding="utf-8"):
                say(f"{folder}: is complete")
                return python
            if importlib.util.find_spec("pip") is None:
                raise UsageError(f"there is no pip in this environment; add it with: {sys.executable} -m ensurepip")
            if not python.exists():
                say(f"{folder}: making a virtual environment")
                _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            pins = locks.pins(lock)
            say(f"{folder}: installing {len(pins)} distributions from {lock.name}")
            install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
            if "torch" in pins:  # with what its build needs here: libraries of CUDA, or none
                _run([*install, "--constraint", str(lock), "torch"])
            # The others say that they need each other's parts for GPUs, which a CPU has no use for.
            _run([*install, "--no-deps", "--requirement", str(lock)])
            _check(engine, python)
            files.write_text(folder / MARKER, lock.read_text(encoding="utf-8"))
    say(f"{folder}: is complete")
    return python


def _check(engine: str, python: Path) -> None:
    """Ask the new environment for what the engine computes with."""
    found = interpreters.facts_of(engine, str(python))
    if absent := [package for package in plugins.load("engines", engine).packages if not found.versions.get(package)]:
        raise InfrastructureError(f"{python}: {interpreters.lacks(absent, str(python))}")


def _run(command: Sequence[str]) -> None:
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        raise InfrastructureError(
            f"exit code {code} of: {shlex.join(command)}; its output is above. Set up again to go on from here"
        )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
