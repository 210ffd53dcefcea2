"""Digests of the code and the library versions that decide a run."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from harness import plugins
from harness.errors import UsageError
from harness.plugins import build
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
    versions = {package: _version(engine, package) for package in packages_of(engine, cache)}
    own = _files_beyond(engine)
    digest = source_digest(tuple(versions.items()))
    return digest_of({"harness": digest, "own": own})[:16] if own else digest


def _version(engine: str, package: str) -> str:
    try:
        return build.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"engine {engine!r} computes with the distribution {package!r}, which is not installed here: install it "
            "into this environment, or correct the engine's packages"
        ) from None


def packages_of(engine: str, cache: str) -> tuple[str, ...]:
    """List the distributions an engine's runs are computed with; first the one it comes from."""
    own = plugins.distribution_of("engines", engine)
    packages = plugins.load("engines", engine).packages
    return (*((own,) if own and own not in packages else ()), *packages, *(() if cache == "none" else (cache,)))


def _files_beyond(engine: str) -> dict[str, str]:
    """Digest the Python files of the package that an engine lies in; none of ours, which count anyway."""
    module = plugins.load("engines", engine).__module__
    file = Path(sys.modules[module].__file__ or "")
    if file.is_relative_to(Path(__file__).parent.parent):
        return {}
    top = sys.modules[module.partition(".")[0]]
    folders = [] if module.startswith("harness.") else [Path(place) for place in getattr(top, "__path__", ())]
    files = [(str(path.relative_to(folder.parent)), path) for folder in folders for path in folder.rglob("*.py")]
    return {name: build.file_digest(path) for name, path in sorted(files) or [(file.name, file)]}


@cache
def source_digest(versions: tuple[tuple[str, str], ...], more: tuple[str, ...] = ()) -> str:
    """Digest the sources of :data:`WORKER_SOURCES` and ``more``, the interpreter, and versions of distributions."""
    root = Path(__file__).parent.parent
    files = sorted(file for name in (*WORKER_SOURCES, *more) for file in _python_files(root / name))
    contents = {str(file.relative_to(root)): sha256(file.read_bytes()).hexdigest() for file in files}
    return digest_of({"files": contents, "versions": versions, "python": platform.python_version()})[:16]


def _python_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(place.rglob("*.py"))
