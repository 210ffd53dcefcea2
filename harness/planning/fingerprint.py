"""Digests of the code and the library versions that decide a run."""

from __future__ import annotations

import platform
from functools import cache
from hashlib import sha256
from pathlib import Path

from harness import plugins
from harness.environments.interpreters import facts_of, lacks
from harness.errors import UsageError
from harness.types import digest_of

WORKER_SOURCES = (
    "types",
    "plugins",
    "codec.py",
    "planning/cut.py",
    "worker",
    "engines",
    "faults",
    "models",
    "spatial",
)
"""Parts of the package that run inside a rank; a change in them makes recorded runs stale."""


def source_of(engine: str, cache: str, python: str = "") -> str:
    """Digest the code and library versions that an engine's runs are computed with on this machine.

    Parameters
    ----------
    engine, cache
        Names of both.
    python
        Interpreter of the engine's environment; empty for this one.

    Raises
    ------
    UsageError
        If a distribution that the engine computes with is not installed, or the interpreter cannot serve.
    """
    found = facts_of(engine, python)
    needed = packages_of(engine, cache)
    if absent := [package for package in needed if found.versions.get(package) is None]:
        raise UsageError(
            f"engine {engine!r} computes with the distribution {absent[0]!r}, which is not installed "
            + (
                f"in the environment of {python}: it {lacks(absent, python)}"
                if python
                else "here: install it into this environment, or correct the engine's packages"
            )
        )
    versions = tuple((package, str(found.versions[package])) for package in needed)
    digest = source_digest(versions, python=found.python)
    return digest_of({"harness": digest, "own": found.own})[:16] if found.own else digest


def packages_of(engine: str, cache: str) -> tuple[str, ...]:
    """List the distributions an engine's runs are computed with; first the one it comes from."""
    own = plugins.distribution_of("engines", engine)
    packages = plugins.load("engines", engine).packages
    return (*((own,) if own and own not in packages else ()), *packages, *(() if cache == "none" else (cache,)))


@cache
def source_digest(versions: tuple[tuple[str, str], ...], more: tuple[str, ...] = (), python: str = "") -> str:
    """Digest the sources of :data:`WORKER_SOURCES` and ``more``, the version of Python, and those of distributions."""
    root = Path(__file__).parent.parent
    files = sorted(file for name in (*WORKER_SOURCES, *more) for file in _python_files(root / name))
    contents = {str(file.relative_to(root)): sha256(file.read_bytes()).hexdigest() for file in files}
    return digest_of({"files": contents, "versions": versions, "python": python or platform.python_version()})[:16]


def _python_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(place.rglob("*.py"))
