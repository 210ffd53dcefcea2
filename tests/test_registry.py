"""Plugins are found by their place, imported on use, and missed with a helpful word."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from harness import registry, types
from harness.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = {"engines": types.Engine, "metrics": types.Metric, "faults": types.Fault, "reporters": types.Reporter}


def add_file(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, name: str, source: str) -> None:
    """Let ``folder`` be one more place where plugins of a kind lie, with one file in it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    package = importlib.import_module(f"harness.{kind}")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.invalidate_caches()
    module = f"harness.{kind}.{name}"
    monkeypatch.setitem(sys.modules, module, None)  # so that monkeypatch forgets the module afterwards
    del sys.modules[module]
    monkeypatch.setattr(package, name, None, raising=False)


def missing_members(plugin: type, protocol: type) -> set[str]:
    members = {name for name in {*vars(protocol), *inspect.get_annotations(protocol)} if not name.startswith("_")}
    return {name for name in members if not hasattr(plugin, name)}


@pytest.mark.parametrize("kind", registry.KINDS)
def test_names_are_the_files_of_the_folder(kind: str) -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / "harness" / kind).glob("[!_]*.py")}
    assert files <= set(registry.names(kind))
    assert registry.names(kind) == sorted(registry.names(kind))


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_plugin_offers_what_its_protocol_asks(kind: str) -> None:
    for name, plugin in zip(registry.names(kind), registry.load_all(kind), strict=True):
        assert plugin.name == name
        assert not missing_members(plugin, PROTOCOLS[kind]), name


def test_names_import_no_plugin() -> None:
    program = dedent("""
        import sys
        from harness import registry
        for kind in registry.KINDS:
            registry.names(kind)
        loaded = [m for m in sys.modules if m.startswith("harness.") and m.count(".") == 2]
        assert not loaded, loaded
        assert "torch" not in sys.modules
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_file_is_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "stand_in", "class StandIn:\n    name = 'stand-in'\n")
    assert "stand-in" in registry.names("metrics")
    assert registry.load("metrics", "stand-in").__name__ == "StandIn"


def test_underscore_files_are_no_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "_shared", "raise RuntimeError\n")
    assert not [name for name in registry.names("metrics") if "shared" in name]


def test_a_broken_plugin_breaks_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "broken", "raise RuntimeError('broken on import')\n")
    add_file(monkeypatch, tmp_path, "metrics", "sound", "class Sound:\n    name = 'sound'\n")
    assert {"broken", "sound"} <= set(registry.names("metrics"))
    assert registry.load("metrics", "sound").name == "sound"
    with pytest.raises(RuntimeError, match="broken on import"):
        registry.load("metrics", "broken")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class One:\n    name = 'twin'\n\nclass Two:\n    name = 'twin'\n", 2),
        ("class One:\n    name = 'other'\n", 0),
        ("from fractions import Fraction as One\n", 0),
    ],
    ids=["two", "another name", "only imported"],
)
def test_a_file_holds_exactly_one_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, found: int
) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "twin", source)
    with pytest.raises(UsageError, match=rf"harness\.metrics\.twin must hold one class.*'twin', found {found}"):
        registry.load("metrics", "twin")


def test_a_wrong_name_is_answered_with_the_closest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "engines", "mosaic_maker", "")
    with pytest.raises(UsageError, match=r"^there is no engine 'mosaik-maker'; did you mean 'mosaic-maker'\?$"):
        registry.load("engines", "mosaik-maker")


def test_a_name_like_no_other_is_answered_with_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "stand_in", "")
    with pytest.raises(UsageError, match=r"^there is no metric 'qqqq'; known: .*stand-in"):
        registry.load("metrics", "qqqq")


def test_other_distributions_add_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "their_engine.py").write_text("class Theirs:\n    name = 'theirs'\n", encoding="utf-8")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[sp_harness.engines]\ntheirs = their_engine:Theirs\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    assert "theirs" in registry.names("engines")
    assert "their_engine" not in sys.modules
    assert registry.load("engines", "theirs").name == "theirs"
    monkeypatch.delitem(sys.modules, "their_engine")


def examples() -> list[tuple[str, str, str]]:
    """``kind, file, source`` of every plugin that CONTRIBUTING.md shows."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(# harness/(\w+)/(\w+)\.py\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(kind, name, source) for source, kind, name in blocks if kind in registry.KINDS]


def test_contributing_shows_one_plugin_of_each_kind() -> None:
    assert sorted(kind for kind, _, _ in examples()) == sorted(registry.KINDS)


@pytest.mark.parametrize(("kind", "name", "source"), examples(), ids=[kind for kind, _, _ in examples()])
def test_the_examples_of_contributing_are_plugins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, name: str, source: str
) -> None:
    add_file(monkeypatch, tmp_path, kind, name, source)
    plugin = registry.load(kind, name.replace("_", "-"))
    assert not missing_members(plugin, PROTOCOLS[kind])
