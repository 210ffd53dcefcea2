"""The house, and that its rooms keep to their places: imports point down, heavy ones come late."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HARNESS = ROOT / "harness"

# From the ground up. A room may import its own layer and every layer below, nothing above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("types", "errors", "codec"),  # the words; standard library alone
    (
        "plugins",
        "matrix",
        "matrix_schema",
        "plan",
        "graph",
        "compare",
        "golden",
        "store",
        "store_url",
        "gates",
        "diagnose",
        "record",
        "shards",
        "interpreter",
        "locks",
        "plain",
        "wire",
        "devices",
        "differences",
        "fuzz_space",
        "fuzz_draw",
    ),  # core; no torch
    ("models", "captions", "spatial", "probe"),  # torch, but no engine
    ("engines", "metrics", "faults", "reporters"),  # plugins: one file each, strangers to one another
    ("worker", "template"),  # the programs inside an engine's interpreter
    (
        "publish",
        "rank",
        "remote",
        "torchrun",
        "outpost",
        "reservation",
        "node",
        "node_launch",
        "nodes",
        "member",
        "blame",
        "launch",
        "pool",
        "executors",
        "measure",
        "run_goldens",
        "ahead",
        "ahead_process",
        "approval",
    ),  # who does the work; launch starts the worker as a module
    (
        "session",
        "merge",
        "explain",
        "console",
        "coverage",
        "coverage_additions",
        "fuzz",
        "killscore",
        "killscore_table",
        "history",
        "cost_table",
        "packing",
    ),  # the whole path, and what is said of it
    (
        "cli",
        "cli_kept",
        "commands",
        "fuzz_command",
        "faults_command",
        "golden_command",
        "many_nodes",
        "history_command",
        "report_commands",
        "pytest_plugin",
    ),  # the doors
)
CORE = {*LAYERS[0], *LAYERS[1]}
PLUGINS = set(LAYERS[3])
STARTED_NOT_IMPORTED = {"worker", "template", "outpost", "ahead_process"}

# Rooms that are loaded inside the interpreter of another engine, where only these can be counted on.
ABROAD = {"types", "errors", "codec", "plugins", "plan", "models", "engines", "probe", "spatial", "faults"}
ABROAD |= {"worker", "template"}
FOUND_ABROAD = {"harness", "torch", "PIL", "safetensors", "numpy", "diffusers", "transformers"}

TORCH_FAMILY = {"torch", "diffusers", "transformers", "accelerate"}
LAYER_OF = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}


@dataclass(frozen=True)
class Import:
    """One import statement of ``importer``; ``target`` is a module, or a name inside one."""

    importer: str
    target: str
    line: int
    deferred: bool
    """Inside a function: it happens on use."""
    typing_only: bool
    """Under ``if TYPE_CHECKING``: it never happens."""

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]

    @property
    def room(self) -> str | None:
        """The room of harness that is imported; ``None`` outside harness and for harness itself."""
        parts = self.target.split(".")
        return parts[1] if parts[0] == "harness" and len(parts) > 1 and parts[1] in rooms() else None

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


@cache
def rooms() -> frozenset[str]:
    files = {path.stem for path in HARNESS.glob("*.py")} - {"__init__", "__main__"}
    return frozenset(files | {path.parent.name for path in HARNESS.glob("*/__init__.py")})


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def read_imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module's source, with relative ones made absolute."""

    def visit(node: ast.AST, deferred: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, deferred, typing_only)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, f"{base}.{alias.name}", node.lineno, deferred, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                yield from visit(statement, deferred, True)
            for statement in node.orelse:
                yield from visit(statement, deferred, typing_only)
        else:
            inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, typing_only)

    yield from visit(ast.parse(source), False, False)


@cache
def all_imports() -> tuple[Import, ...]:
    found: list[Import] = []
    for path in sorted(HARNESS.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += read_imports(path.read_text(encoding="utf-8"), module, is_package)
    return tuple(found)


def assert_none(offenders: list[Import], rule: str) -> None:
    assert not offenders, rule + ":\n  " + "\n  ".join(map(str, offenders))


def test_every_room_has_its_place() -> None:
    homeless = rooms() - set(LAYER_OF)
    assert not homeless, f"give {sorted(homeless)} a layer in LAYERS"


def test_imports_point_down() -> None:
    upward = [
        i
        for i in all_imports()
        if {i.room, room_of(i.importer)} <= set(LAYER_OF) and LAYER_OF[i.room or ""] > LAYER_OF[room_of(i.importer)]
    ]
    assert_none(upward, "a room imports only its own layer and those below")


def test_the_package_itself_imports_nothing() -> None:
    assert_none([i for i in all_imports() if i.importer == "harness"], "`import harness` stays free")


def test_the_words_need_the_standard_library_alone() -> None:
    assert_none(
        [
            i
            for i in all_imports()
            if room_of(i.importer) in LAYERS[0] and i.package not in {*sys.stdlib_module_names, "harness"}
        ],
        "types, errors and codec use the standard library",
    )


def test_the_core_knows_no_torch() -> None:
    assert_none(
        [
            i
            for i in all_imports()
            if room_of(i.importer) in CORE
            and not i.typing_only
            and (i.package in TORCH_FAMILY or i.target.startswith("safetensors.torch"))
        ],
        "the pure core imports nothing of torch's family, not even late",
    )


def test_plugins_are_strangers() -> None:
    """A plugin may use underscore modules of its own package, which hold what several of them share."""
    offenders = []
    for i in all_imports():
        if i.room not in PLUGINS or room_of(i.importer) not in PLUGINS:
            continue
        kind, _, rest = i.target.removeprefix("harness.").partition(".")
        if kind != room_of(i.importer) or not rest.startswith("_"):
            offenders.append(i)
    assert_none(offenders, "plugins reach one another through harness.plugins alone")


def test_plugins_are_found_by_the_registry_alone() -> None:
    offenders = [i for i in all_imports() if i.room in PLUGINS and room_of(i.importer) not in PLUGINS]
    assert_none(offenders, "no one imports a plugin by name")


def test_the_worker_is_started_and_never_imported() -> None:
    offenders = [
        i for i in all_imports() if i.room in STARTED_NOT_IMPORTED and room_of(i.importer) not in STARTED_NOT_IMPORTED
    ]
    assert_none(offenders, "they are started as modules, and share their processes with nobody else")


def test_what_runs_abroad_brings_nothing_along() -> None:
    at_load = [i for i in all_imports() if room_of(i.importer) in ABROAD and not (i.deferred or i.typing_only)]
    assert_none(
        [i for i in at_load if i.package not in {*sys.stdlib_module_names, *FOUND_ABROAD}],
        f"a foreign interpreter offers only {sorted(FOUND_ABROAD)}",
    )
    assert_none([i for i in at_load if i.room and i.room not in ABROAD], "and only the rooms that travel")


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("from . import b", "harness.a.b"),
        ("from .b import c", "harness.a.b.c"),
        ("from .. import types", "harness.types"),
        ("def f():\n    import torch", "torch"),
    ],
)
def test_the_reader_of_imports_reads(line: str, target: str) -> None:
    assert [i.target for i in read_imports(line, "harness.a.x")] == [target]


def modules_after(code: str) -> set[str]:
    """Top-level packages that are loaded after ``code`` ran in an interpreter of its own."""
    program = code + "\nimport json, sys\nprint('\\n' + json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "720x720", "--ulysses", "2"]], ids=" ".join)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    loaded = modules_after(
        "import sys\n"
        "from harness.cli.app import main\n"
        f"sys.argv = ['sp-harness', *{arguments!r}]\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "assert not code, code\n"
    )
    assert not loaded & TORCH_FAMILY


def test_loading_the_core_loads_no_torch() -> None:
    core = sorted(room for room in CORE & rooms())
    assert not modules_after("import " + ", ".join(f"harness.{room}" for room in core)) & TORCH_FAMILY
