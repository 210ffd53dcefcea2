"""Facts of an environment that decide what an engine computes in it.

Collected in the interpreter itself: here, or by ``python start.py harness.environments.facts ENGINE``, which prints
them as a line of JSON. Standard library only, apart from what a plugin imports.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import plugins
from harness.errors import HarnessError
from harness.plugins import Engine, build

NEEDED = {"numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors"}
"""Modules that a rank saves a drawing with, and their distributions."""


@dataclass(frozen=True)
class Facts:
    """Interpreter and distributions, as far as they decide the result of one engine."""

    python: str
    """Version of the interpreter."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Version of each distribution that the engine names, its own first; ``None`` where it is not installed."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Digests of the Python files of the package that the engine lies in; none of ours, which count anyway."""
    lacking: tuple[str, ...] = ()
    """Distributions of :data:`NEEDED` that are not installed."""


def collect(name: str) -> Facts:
    """Collect the facts of this interpreter for an engine; where a rank cannot be, only what it lacks."""
    lacking = tuple(package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None)
    if lacking:
        return Facts(platform.python_version(), lacking=lacking)
    engine: type[Engine] = plugins.load("engines", name)
    own = plugins.distribution_of("engines", name)
    packages = (*((own,) if own else ()), *engine.packages, *(cache for cache in engine.caches if cache != "none"))
    return Facts(
        platform.python_version(),
        {package: _version(package) for package in dict.fromkeys(packages)},
        _files_beyond(engine),
    )


def _version(package: str) -> str | None:
    try:
        return build.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _files_beyond(engine: type[Engine]) -> dict[str, str]:
    module = engine.__module__
    file = Path(sys.modules[module].__file__ or "")
    if file.is_relative_to(Path(__file__).parent.parent):
        return {}
    top = sys.modules[module.partition(".")[0]]
    folders = [] if module.startswith("harness.") else [Path(place) for place in getattr(top, "__path__", ())]
    files = [(str(path.relative_to(folder.parent)), path) for folder in folders for path in folder.rglob("*.py")]
    return {name: build.file_digest(path) for name, path in sorted(files) or [(file.name, file)]}


def decode(line: str) -> Facts:
    """Decode what this module prints.

    Raises
    ------
    ValueError
        If it is no such line.
    """
    data: Any = json.loads(line)
    if not isinstance(data, dict) or not isinstance(data.get("versions"), dict):
        raise ValueError(f"no facts of an environment: {line!r}")
    return Facts(data["python"], data["versions"], data["own"], tuple(data["lacking"]))


def main() -> None:
    """Print the facts of this interpreter for the engine that the first argument names."""
    try:
        print(json.dumps(asdict(collect(sys.argv[1]))))
    except HarnessError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
