"""Plugins are found by their place, imported on use, and missed with a helpful word."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image

from harness import plugins
from harness.errors import ConfigError, UsageError
from harness.execution.events import Finished
from harness.execution.pool import Pool
from harness.plugins import Option
from harness.session import steps

ROOT = Path(__file__).resolve().parent.parent


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


def sound(name: str) -> str:
    """Source of a reporter."""
    write = "    def write(self, report, folder):\n        return folder\n"
    return f"from harness.plugins import Reporter\nclass Sound(Reporter):\n    name = {name!r}\n{write}"


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_names_are_the_files_of_the_folder(kind: str) -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / "harness" / kind).glob("[!_]*.py")}
    assert files <= set(plugins.names(kind))
    assert plugins.names(kind) == sorted(plugins.names(kind))


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plugin_is_of_its_base_class(kind: str) -> None:
    for name, plugin in zip(plugins.names(kind), plugins.load_all(kind), strict=True):
        assert plugin.name == name
        assert issubclass(plugin, plugins.KINDS[kind])


@pytest.mark.parametrize(
    ("option", "values"),
    [
        (Option(bool, False), "true or false"),
        (Option(int, 2, ge=1, le=8), "an integer at least 1 and at most 8"),
        (Option(float, 0.5, gt=0, lt=1), "a number above 0 and below 1"),
        (Option(str), "a text"),
        (Option(str, "a", choices=("a", "b")), "one of a, b"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_describes_its_values_and_takes_its_default(option: Option, values: str) -> None:
    assert option.values() == values
    assert option.default is None or option.problem(option.default) is None
    assert option.problem([1]) is not None


def test_a_default_that_is_not_allowed_is_a_mistake_of_the_plugin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "from harness.plugins import Option\nOPTION = Option(int, 0, ge=1)\n"
    add_file(monkeypatch, tmp_path, "engines", "wrong", source)
    says = r"^engine 'wrong' .*ValueError: an option's default is 0; write an integer at least 1$"
    with pytest.raises(UsageError, match=says):
        plugins.load("engines", "wrong")


def test_names_import_no_plugin() -> None:
    program = dedent("""
        import sys
        from harness import plugins
        for kind in plugins.KINDS:
            plugins.names(kind)
        loaded = [m for m in sys.modules if m.startswith(tuple(f"harness.{kind}." for kind in plugins.KINDS))]
        assert not loaded, loaded
        assert "torch" not in sys.modules
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_file_is_a_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "reporters", "stand_in", sound("stand-in"))
    assert "stand-in" in plugins.names("reporters")
    assert plugins.load("reporters", "stand-in").__name__ == "Sound"


def test_underscore_files_are_no_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "_shared", "raise RuntimeError\n")
    assert not [name for name in plugins.names("metrics") if "shared" in name]


def test_a_broken_plugin_breaks_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "reporters", "broken", "import no_such_package\n")
    add_file(monkeypatch, tmp_path, "reporters", "sound", sound("sound"))
    assert {"broken", "sound"} <= set(plugins.names("reporters"))
    assert plugins.load("reporters", "sound").name == "sound"
    says = (
        r"^reporter 'broken' \(harness\.reporters\.broken\) cannot be imported: ModuleNotFoundError: .*no_such_package"
    )
    with pytest.raises(UsageError, match=says):
        plugins.load("reporters", "broken")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Own:\n    name = 'own'\n", "is no Metric: derive its class from harness.plugins.Metric"),
        (
            "from harness.plugins import Metric\nclass Own(Metric):\n    name = 'own'\n    unit = 'dB'\n",
            "lacks measure, variant, higher_is_better",
        ),
    ],
    ids=["no base class", "members missing"],
)
def test_a_plugin_that_falls_short_is_told_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, says: str
) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "own", source)
    with pytest.raises(UsageError) as error:
        plugins.load("metrics", "own")
    assert str(error.value) == f"metric 'own' (harness.metrics.own) {says}"


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
        plugins.load("metrics", "twin")


def test_a_wrong_name_is_answered_with_the_closest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "engines", "mosaic_maker", "")
    with pytest.raises(UsageError, match=r"^there is no engine 'mosaik-maker'; did you mean 'mosaic-maker'\?$"):
        plugins.load("engines", "mosaik-maker")


def test_a_name_like_no_other_is_answered_with_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_file(monkeypatch, tmp_path, "metrics", "stand_in", "")
    with pytest.raises(UsageError, match=r"^there is no metric 'qqqq'; known: .*stand-in"):
        plugins.load("metrics", "qqqq")


def add_distribution(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, point: str, source: str) -> None:
    """Install a distribution with one plugin, the class of ``their_module``; child processes find it too."""
    (folder / "their_module.py").write_text(source, encoding="utf-8")
    info = folder / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n", encoding="utf-8")
    (named,) = re.findall(r"^class (\w+)", source, re.MULTILINE)
    (info / "entry_points.txt").write_text(f"[sp_harness.{kind}]\n{point} = their_module:{named}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setitem(sys.modules, "their_module", None)  # so that monkeypatch forgets the module afterwards
    del sys.modules["their_module"]


def test_other_distributions_add_plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_distribution(monkeypatch, tmp_path, "reporters", "theirs", sound("theirs"))
    assert "theirs" in plugins.names("reporters")
    assert "their_module" not in sys.modules
    assert plugins.load("reporters", "theirs").name == "theirs"


def test_an_entry_point_bears_the_name_of_its_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_distribution(monkeypatch, tmp_path, "reporters", "theirs", sound("ours"))
    says = r"^reporter 'theirs' \(their_module:Sound\) calls itself 'ours': class and entry point need one name$"
    with pytest.raises(UsageError, match=says):
        plugins.load("reporters", "theirs")


def examples() -> list[tuple[str, str, str]]:
    """``kind, file, source`` of every plugin that CONTRIBUTING.md shows."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(# harness/(\w+)/(\w+)\.py\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(kind, name, source) for source, kind, name in blocks if kind in plugins.KINDS]


def test_contributing_shows_one_plugin_of_each_kind() -> None:
    assert sorted(kind for kind, _, _ in examples()) == sorted(plugins.KINDS)


@pytest.mark.parametrize(("kind", "name", "source"), examples(), ids=[kind for kind, _, _ in examples()])
def test_the_examples_of_contributing_are_plugins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, name: str, source: str
) -> None:
    add_file(monkeypatch, tmp_path, kind, name, source)
    plugin = plugins.load(kind, name.replace("_", "-"))
    assert issubclass(plugin, plugins.KINDS[kind])


def test_the_engine_of_contributing_draws_from_a_distribution_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (source,) = (source for kind, _, source in examples() if kind == "engines")
    (tmp_path / "site").mkdir()
    add_distribution(monkeypatch, tmp_path / "site", "engines", "flat", source)
    matrix = tmp_path / "own.toml"
    text = (
        'schema = 1\nmodel = "fake"\ngolden_store = "golden"\n[[case]]\nsize = "48x32"\nprompt = "x"\n'
        '[[variant]]\nengine = "flat"\naxis = "none"\nulysses = 2\noptions = { colour = COLOUR }\n'
    )
    matrix.write_text(text.replace("COLOUR", "7"), encoding="utf-8")
    with pytest.raises(ConfigError, match="flat takes no colour = 7; write a text"):
        steps.prepare(matrix)

    matrix.write_text(text.replace("COLOUR", '"navy"'), encoding="utf-8")
    _, graph = steps.prepare(matrix)
    candidate = graph.specs[graph.rows[0].runs["candidate"]]
    with Pool(tmp_path / "logs") as workers:
        events = list(workers.execute([candidate], lambda run: tmp_path / "run"))
    (run,) = (event.run for event in events if isinstance(event, Finished))
    assert (run.failure, run.spec.world_size) == (None, 2)
    assert sorted(run.versions) == ["numpy", "pillow", "python", "their-package"]
    with Image.open(tmp_path / "run" / run.images[0]) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((48, 32), (0, 0, 128))
