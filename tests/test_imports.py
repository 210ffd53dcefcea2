"""Imports: the contracts of pyproject.toml, and what they cannot state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent

FOUNDATIONS = ["harness.types", "harness.errors", "harness.files", "harness.codec", "harness.plugins"]
IN_A_RANK = [*FOUNDATIONS, "harness.planning.cut", "harness.models", "harness.worker"]
IN_A_RANK += ["harness.spatial", "harness.engines", "harness.faults"]
FOUND_IN_A_RANK = ["torch", "numpy", "PIL", "safetensors", "diffusers", "transformers"]

LOAD_ALL = """
import builtins, importlib, pkgutil, sys

packages, allowed = sys.argv[1].split(), {*sys.stdlib_module_names, "harness", *sys.argv[2].split()}
found, original = [], builtins.__import__

def checked(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer.partition(".")[0] == "harness" and not level and name.partition(".")[0] not in allowed:
        found.append(f"{importer} imports {name}")
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = checked
for name in packages:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), name + "."):
        importlib.import_module(module.name)
print(*found, sep="\\n", end="")
"""


def test_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_plugins_import_only_shared_modules_of_their_kind() -> None:
    graph = grimp.build_graph("harness", cache_dir=None)
    assert not graph.find_modules_directly_imported_by("harness"), "`import harness` loads nothing else"
    kinds = [f"harness.{kind}" for kind in ("engines", "metrics", "faults", "reporters")]
    for plugin in (module for kind in kinds for module in graph.find_children(kind)):
        kind = plugin.rpartition(".")[0]
        siblings = graph.find_modules_directly_imported_by(plugin) & graph.find_children(kind)
        assert not [name for name in siblings if not name.startswith(f"{kind}._")], plugin


@pytest.mark.parametrize(
    ("packages", "allowed"), [(FOUNDATIONS, []), (IN_A_RANK, FOUND_IN_A_RANK)], ids=["foundations", "in a rank"]
)
def test_loading_needs_few_distributions(packages: list[str], allowed: list[str]) -> None:
    """An engine's own environment offers few packages; others may be imported on use."""
    command = [sys.executable, "-c", LOAD_ALL, " ".join(packages), " ".join(allowed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
