"""Digests of the code and the library versions that decide a run."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from hashlib import sha256
from pathlib import Path

from harness import plugins
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


def source_of(engine: str, cache: str) -> str:
    """Digest the code and library versions that an engine's runs are computed with on this machine.

    Raises
    ------
    UsageError
        If a distribution that the engine computes with is not installed.
    """
    packages = packages_of(engine, cache)
    for package in packages:
        _check_installed(engine, package)
    return source_digest(packages)


def _check_installed(engine: str, package: str) -> None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"engine {engine!r} computes with the distribution {package!r}, which is not installed here: install it "
            "into this environment, or correct the engine's packages"
        ) from None


def packages_of(engine: str, cache: str) -> tuple[str, ...]:
    """List the distributions an engine's runs are computed with."""
    return (*plugins.load("engines", engine).packages, *(() if cache == "none" else (cache,)))


@cache
def source_digest(packages: tuple[str, ...], more: tuple[str, ...] = ()) -> str:
    """Digest the sources of :data:`WORKER_SOURCES` and ``more``, and the versions of some distributions."""
    root = Path(__file__).parent.parent
    files = sorted(file for name in (*WORKER_SOURCES, *more) for file in _python_files(root / name))
    contents = {str(file.relative_to(root)): sha256(file.read_bytes()).hexdigest() for file in files}
    versions = {package: importlib.metadata.version(package) for package in packages}
    return digest_of({"files": contents, "versions": versions})[:16]


def _python_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(place.rglob("*.py"))
