"""Inputs that nobody means: matrix files, run folders, goldens and arguments; and what has to hold for each."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import strategies as st

from harness.matrix.schema import BoundTable, CaseTable, MatrixTables, VariantTable
from tests.command_line import Done, invoke

Draw = Callable[[Any], Any]

DOCUMENTED = {0, 1, 2, 3, 125, 130, 141}
"""Exit codes, 125 of `run --bisect`; 70, a bug of the harness, is what is looked for."""
LONGEST_S = 300
"""Of one command on a machine that is busy with everything else; most take a tenth of a second."""

TEXTS = (
    "", " ", "a", "fake", "nano", "spatial", "h", "auto", "none", "off", "required", "128x128", "144x160", "0x0",
    "999984x999984", "16x16", "cache-dit", "u2", "128x128/fake-u2-h", "../../up", "/", "~", ".", "/dev/null",
    "/proc/self/mem", "x" * 300, "x" * 5000, "a\0b", "\x1b[31m", "\u202e\u0000",
    "<script>alert(1)</script>", "{{ 7 * 7 }}", "memory://store", "nope://x",
    "-1", "--", "--help", "1/2", "2/1", "0/0", "9" * 400, "*", "[", "a\nb",
    "\ud7ff\uffff",
)  # fmt: skip
NUMBERS = (
    0, 1, 2, 3, 4, 6, 7, -1, 16, 64, 1024, 1025, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e308,
    float("inf"), float("nan"),
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.booleans(), st.text(max_size=8), st.integers(), st.floats()
)
KEYS = st.sampled_from(TEXTS) | st.text(max_size=5)
NESTED = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)


# ---------------------------------------------------------------- running a command


def run(arguments: list[str], apart: bool) -> Done:
    """Run a command in this process or, as a user does, in one of its own."""
    if apart and not any("\0" in argument for argument in arguments):
        command = [sys.executable, "-m", "harness.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            command, capture_output=True, timeout=LONGEST_S, env=environment, stdin=subprocess.DEVNULL
        )
        return Done(done.returncode, *(text.decode("utf-8", "replace") for text in (done.stdout, done.stderr)))
    with _limited():
        return invoke(*arguments)


@contextmanager
def _limited() -> Iterator[None]:
    def over(number: int, frame: Any) -> None:
        raise TimeoutError(f"the command takes more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(done: Done, said: str) -> None:
    """Hold a command to its documented ends."""
    assert done.code in DOCUMENTED, f"{said}: exit code {done.code}\n{done.out[-2000:]}{done.err[-2000:]}"
    assert "Traceback (most recent call last)" not in done.err, f"{said}\n{done.err[-4000:]}"
    assert "bug of sp-harness" not in done.err + done.out, f"{said}\n{done.err[-4000:]}"


def contents(root: Path, leave_out: tuple[Path, ...] = ()) -> dict[str, str]:
    """Digest every file below a folder by its path, without what lies in some folders."""
    found = {}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if Path(folder, name) not in leave_out]
        for path in (Path(folder, name) for name in files):
            if path not in leave_out and path.is_file():
                found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def check_recorded(before: Mapping[str, str], after: Mapping[str, str], damaged: set[str]) -> None:
    """Check that recorded files are as they were, unless they were damaged, or their run was with them."""
    for name, digest in before.items():
        path = Path(name)
        is_recorded = path.name == "plan.json" or path.suffix in (".png", ".safetensors")
        if "runs" in path.parts and is_recorded and not any(str(path.parent) == str(Path(d).parent) for d in damaged):
            assert after.get(name) == digest, f"{name} was whole, and is {'changed' if name in after else 'gone'}"


# ---------------------------------------------------------------- damage


def damage(draw: Draw, root: Path, path: Path) -> str:
    """Damage a file, and say how."""
    kinds: list[Any] = [_cut, _flip, _fill, _remove, _replace_by_folder, _link_elsewhere]
    if path.suffix in (".json", ".jsonl"):
        kinds += [_edit] * 8
    kind = draw(st.sampled_from(kinds))
    return f"{kind.__name__[1:]} {path.relative_to(root)} {kind(draw, path) or ''}"


def _cut(draw: Draw, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw(st.integers(0, max(0, len(content) - 1)))])


def _flip(draw: Draw, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in draw(st.lists(st.integers(0, max(0, len(content) - 1)), min_size=1, max_size=4)):
        content[place : place + 1] = bytes([draw(st.integers(0, 255))])
    path.write_bytes(content)


def _fill(draw: Draw, path: Path) -> None:
    many = st.sampled_from(
        [b"", b"null", b"[]", b"{}", b"\xff\xfe\x00", b"[" * 100_000, b"<<<<<<< ours", b'{"schema": 9}']
    )
    path.write_bytes(draw(many | st.binary(max_size=64)))


def _remove(draw: Draw, path: Path) -> None:
    path.unlink()


def _replace_by_folder(draw: Draw, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link_elsewhere(draw: Draw, path: Path) -> None:
    target = draw(st.sampled_from([path.name, "/dev/null", "/nowhere", "/etc/hostname"]))
    path.unlink()
    path.symlink_to(target)


def _edit(draw: Draw, path: Path) -> str:
    """Replace, remove or add a value somewhere in a JSON file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    index = draw(st.integers(0, len(lines) - 1)) if lines else 0
    data = {"root": json.loads(lines[index])} if lines else {"root": None}
    place: Any = data
    key: Any = "root"
    way = []
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 7)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        way.append(str(key))
    if draw(st.integers(0, 4)) == 0 and way:
        del place[key]
    else:
        place[key] = draw(NESTED)
    lines[index : index + 1] = [json.dumps(data.get("root"))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"at {'.'.join(way)[:80]}: {place.get(key) if isinstance(place, dict) else '?'!r:.60}"


def files_of(root: Path) -> list[Path]:
    """List the files below a folder that commands read."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in SUFFIXES)


SUFFIXES = (".json", ".jsonl", ".png", ".safetensors", ".txt")


# ---------------------------------------------------------------- matrices and arguments

WHOLE: dict[str, Any] = {
    "schema": 1, "name": "m", "model": "fake", "steps": 2, "golden": "off", "timeout_s": 30.0,
    "case": [{"size": "128x128", "prompt": "waves"}],
    "variant": [{"engine": "fake", "ulysses": 2, "axis": "h"}],
}  # fmt: skip


@st.composite
def matrices(draw: Draw) -> bytes:
    """Draw a matrix file: a whole one with some values replaced, now and then no TOML at all."""
    if draw(st.integers(0, 9)) == 0:
        return bytes(draw(st.binary(max_size=200)))
    table = json.loads(json.dumps(WHOLE))
    tables = {"": MatrixTables, "case": CaseTable, "variant": VariantTable, "bound": BoundTable}
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(tables)))
        known = [field.alias or key for key, field in tables[name].model_fields.items()]
        key = draw(st.sampled_from(known) | st.text(max_size=5))
        value = draw(NESTED | st.lists(VALUES, max_size=3))
        if key == "options":
            options = ("step_s", "exchange", "cache_mask", "cache_threshold", "keys", "anything")
            value = draw(st.dictionaries(st.sampled_from(options), VALUES, max_size=2))
        if not name:
            table[key] = value
        elif isinstance(table.setdefault(name, [{}]), list) and table[name] and isinstance(table[name][0], dict):
            table[name][0][key] = value
    try:
        text = tomli_w.dumps(table).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError):  # what TOML has no form for
        text = repr(table).encode("utf-8", "replace")
    if draw(st.integers(0, 9)) == 0:
        text = b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


OPTIONS: Mapping[str, tuple[str, ...]] = {
    "run": ("--out", "--case", "--size", "--axis", "--engine", "--golden", "--resume", "--no-judge", "--no-explain",
            "--shard", "--executor", "--ray-address", "--bisect", "--python"),
    "merge": ("--out", "--mixed"), "plan": ("--ulysses", "--ring", "--axis", "--json"), "compare": (), "explain": (),
    "approve": ("--yes", "--by"), "report": (), "history": ("--out", "--slower", "--moved-db"),
    "issue": ("--history", "--log", "--link"), "table": ("--markdown",), "pack": ("--pictures",), "ls": (),
    "golden verify": (), "models ls": (), "matrix cover": ("--json",), "faults ls": (), "engines ls": (),
    "engines show": (), "engines verified": (), "engines page": (), "nothing": (), "": ("--version", "--help"),
}  # fmt: skip
"""Commands and their options; none that installs, reaches a network, or draws for minutes."""
FLAGS = {"--no-judge", "--no-explain", "--mixed", "--json", "--yes", "--markdown", "--version", "--help"}


@st.composite
def command_lines(draw: Draw, places: tuple[str, ...]) -> list[str]:
    """Draw a command with arguments: files and folders that are there, numbers, and texts that nobody means."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    values = st.sampled_from(places) | st.sampled_from(TEXTS) | st.sampled_from(NUMBERS).map(str)
    line = command.split()
    for _ in range(draw(st.integers(0, 3))):
        options = OPTIONS[command]
        if options and draw(st.booleans()):
            option = draw(st.sampled_from(options))
            line += [option] if option in FLAGS else [option, draw(values)]
        else:
            line.append(draw(values))
    return [argument.replace("\0", "") for argument in line]  # no system hands on a NUL


def is_small(matrix: Path) -> bool:
    """Whether a matrix, if it is one, can be drawn within a second."""
    from harness.errors import HarnessError
    from harness.session import steps

    try:
        planned, graph = steps.prepare(matrix)
    except (HarnessError, OSError):
        return True
    small_cases = all(
        case.model == "fake" and case.size.tokens <= 100 and case.steps <= 4 and case.num_images <= 2
        for case in planned.cases
    )
    small_runs = all(
        spec.world_size <= 3 and not spec.fault and spec.options.get("step_s", 0) <= 0.01
        for spec in graph.specs.values()
    )
    return len(graph.specs) <= 12 and small_cases and small_runs
