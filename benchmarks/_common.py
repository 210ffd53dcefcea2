"""What the benchmarks share: their arguments, the machine they name, runs of a matrix, and what they print."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Group
from rich.table import Table
from rich.text import Text

import harness
from harness.cli.console import make_console
from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.execution import gpus
from harness.planning.graph import Graph
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Matrix, Row

PACKAGE_PARENT = Path(harness.__file__).resolve().parent.parent
LONG_TIMEOUT_S = 1800.0
"""For a run under a benchmark: a slow machine is measured, not judged."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=_new_file, metavar="FILE", help="also write what is printed, unrounded, as JSON")
    return made


def _new_file(text: str) -> Path:
    """A file in a folder that is there: what was measured for an hour is not lost for want of one."""
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {Path(text).parent}; make it first")
    return Path(text)


def positive(text: str) -> int:
    """A number of things, one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def start(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark and end with its exit code: what a user can mend is one line, as in ``sp-harness``."""
    try:
        code = main() or 0
    except HarnessError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


def add_model(made: argparse.ArgumentParser, model: str = "nano") -> None:
    """Arguments that say what is drawn, and on what."""
    made.add_argument("--model", default=model)
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))


def add_matrix(made: argparse.ArgumentParser) -> None:
    """Arguments that say which rows are run."""
    made.add_argument("--matrix", type=Path, default=Path("matrices/pr.toml"))
    made.add_argument("--golden", default="required", choices=("required", "off"))
    made.add_argument("--size", action="append", default=[], metavar="WIDTHxHEIGHT", help="only this size")


def machine(device: str = "cpu") -> dict[str, Any]:
    """Name the machine, and the libraries that decide how fast it is."""
    affinity = getattr(os, "sched_getaffinity", None)
    named: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
    }
    if device == "cuda":
        import torch

        named["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return named


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # on the path, and not installed
        return str(getattr(importlib.import_module(name), "__version__", "unknown"))


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], num_names: int = 1) -> Group:
    """Make a table under its title; its first columns hold names, the others figures."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < num_names else "right")
    for row in rows:
        made.add_row(*row)
    return Group(Text(f"\n{title}", style="bold"), made)


def finish(
    arguments: argparse.Namespace,
    device: str,
    tables: Sequence[Group | str],
    figures: dict[str, Any],
    broken: Sequence[str] = (),
) -> int:
    """Print the tables under the name of the machine; write the figures where a file is asked for.

    Returns
    -------
    int
        Exit code: 1 where bounds are broken (one line for each), else 0.
    """
    named = machine(device)
    console = make_console()
    gpus = named.get("gpus", [])
    on = f"{len(gpus)} x {gpus[0]}, " if gpus else ""
    console.print(f"{on}{named['cpu']}, {named['cores']} cores, Python {named['python']}, torch {named['torch']}")
    for each in tables:
        console.print(Text(each) if isinstance(each, str) else each)
    for line in broken:
        console.print(Text(f"bound broken: {line}", style="bold red"))
    if arguments.json:
        document = {"command": " ".join(sys.argv), "machine": named, "broken": list(broken), **figures}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if broken else 0


def drawable(matrix: Matrix, graph: Graph) -> list[Row]:
    """Rows that are not skipped.

    Raises
    ------
    UsageError
        If all are.
    InfrastructureError
        If they need GPUs and there are none.
    """
    if matrix.cases[0].device == "cuda" and not gpus.visible("cuda"):
        raise InfrastructureError("no GPU is visible here; see nvidia-smi and CUDA_VISIBLE_DEVICES")
    rows = [row for row in graph.rows if row.skip is None]
    if not rows:
        raise UsageError(f"{matrix.path}: every row is skipped, the first because {graph.rows[0].skip}")
    return rows


def retargeted(matrix: Matrix, model: str, device: str, dtype: str) -> tuple[Matrix, Graph]:
    """The same cases on another model, device and dtype; nothing is held to a golden or to a time limit."""
    changes: dict[str, Any] = {"model": model, "device": device, "dtype": dtype, "golden": "off"}
    cases = tuple(replace(case, **changes, timeout_s=LONG_TIMEOUT_S) for case in matrix.cases)
    changed = replace(matrix, cases=cases)
    return changed, steps.plan(changed)


@dataclass(frozen=True)
class HarnessRun:
    """One ``sp-harness run``, seen from outside: when it began and ended, and the folder it left."""

    began_at: float
    wall_s: float
    exit_code: int
    folder: RunFolder

    def journal(self) -> list[dict[str, Any]]:
        """What happened, in order; ``time`` is in seconds since the epoch."""
        lines = (self.folder.path / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def run_harness(matrix: Path, out: Path, golden: str = "required", sizes: Sequence[str] = ()) -> HarnessRun:
    """Time ``sp-harness run`` on a matrix, as a user starts it.

    Raises
    ------
    SystemExit
        If a run has no picture: what is left out would count as speed.
    """
    arguments = ["run", str(matrix), "--out", str(out), "--golden", golden]
    arguments += [argument for size in sizes for argument in ("--size", size)]
    before = set(out.glob("*/plan.json"))
    began_at, started = time.time(), time.perf_counter()
    code, said = command_line(arguments)
    wall_s = time.perf_counter() - started
    found = set(out.glob("*/plan.json")) - before
    if code not in (0, 1) or len(found) != 1:
        raise SystemExit(f"sp-harness {' '.join(arguments)}: exit code {code}\n{said[-4000:]}")
    folder = RunFolder.open(found.pop().parent)
    drawn = [run for run in folder.runs().values() if run.failure is None]
    if len(drawn) != len(folder.plan.specs):
        raise SystemExit(f"{matrix}: {len(drawn)} of {len(folder.plan.specs)} runs have a picture\n{said[-4000:]}")
    return HarnessRun(began_at, wall_s, code, folder)


def command_line(arguments: Sequence[str]) -> tuple[int, str]:
    """Run ``sp-harness`` in a process of its own; its exit code and what it printed."""
    command = [sys.executable, "-m", "harness.cli", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Environment of a process that imports ``harness``, installed or not."""
    path = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **extra}
