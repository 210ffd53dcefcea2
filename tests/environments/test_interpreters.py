"""Interpreters of engines: those that cannot serve, and runs in one that can."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.environments import child_process, interpreters
from harness.errors import UsageError
from harness.execution.pool import Pool
from harness.matrix.loader import read_matrix
from harness.plugins import build
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome

MakePython = Callable[..., Path]

MATRIX = """
schema = 1
model = "fake"
steps = 2
golden = "off"
golden_store = "golden"

[[case]]
size = "128x128"
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
environment = ["new", "absent"]
required = false
"""


def says(python: Path) -> str:
    with pytest.raises(UsageError) as caught:
        interpreters.facts_of("fake", str(python))
    message = str(caught.value)
    assert message.startswith(f"interpreter of fake: {python}: ")
    assert "\n" not in message
    return message


def test_what_is_no_file_of_an_interpreter_is_told_so(tmp_path: Path) -> None:
    assert "there is no such file; name the python of an environment" in says(tmp_path / "none")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text("echo hello\n")
    assert says(tmp_path / "venv").endswith(f"is a folder; write {python}")
    assert "is not executable" in says(python)
    python.chmod(0o755)
    assert "is no Python; name the python of an environment" in says(python)


@pytest.mark.parametrize(
    ("script", "reason"),
    [("echo hello", "is no Python"), ("echo no licence >&2; exit 3", "cannot be used: no licence")],
)
def test_a_program_that_is_no_python_is_told_so(tmp_path: Path, script: str, reason: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert reason in says(program)


def test_an_environment_without_what_a_rank_needs_is_told_what_to_install(make_python: MakePython) -> None:
    python = make_python(flags="-S")
    assert says(python).endswith(f"lacks numpy pillow safetensors; install with: {python} -m pip install "
                                 "numpy pillow safetensors")  # fmt: skip


def test_a_python_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        runpy.run_path(str(Path(child_process.HERE, "harness", "environments", "start.py")), run_name="__main__")


def test_an_engine_whose_distributions_are_not_there_is_a_mistake(make_python: MakePython, tmp_path: Path) -> None:
    text = MATRIX.replace('"fake"', '"sglang"').replace('axis = "h"', "").replace('model = "sglang"', 'model = "nano"')
    (tmp_path / "own.toml").write_text(text)
    python = make_python()
    with pytest.raises(UsageError) as caught:
        steps.prepare(tmp_path / "own.toml", python=[f"sglang@new={python}"])
    assert f"'sglang', which is not installed in the environment of {python}: it lacks sglang" in str(caught.value)


def test_an_engine_that_needs_an_environment_and_has_none_is_a_skip(tmp_path: Path) -> None:
    text = MATRIX.replace('"fake"', '"sglang"').replace('axis = "h"', "").replace('model = "sglang"', 'model = "nano"')
    (tmp_path / "own.toml").write_text(
        text.replace('["new", "absent"]', '"0.5.9"') + '[[variant]]\nengine = "sglang"\n'
    )
    named, unnamed = (row.skip for row in steps.prepare(tmp_path / "own.toml")[1].rows)
    assert named is not None
    assert unnamed is not None
    assert named.endswith("make it with: sp-harness engines setup sglang --version 0.5.9 --cpu")
    assert unnamed == "sglang is not installed in this environment; name another's with --python sglang=PYTHON"


def test_an_engine_runs_in_its_environment_and_its_baseline_in_this_one(
    make_python: MakePython, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(MATRIX)
    python = make_python(numpy="99.0")
    matrix, graph = steps.prepare(tmp_path / "own.toml", python=[f"fake@new={python}"])
    folder = RunFolder.create(tmp_path / "reports", matrix, graph, "off")
    with Pool(folder.path / "logs") as workers:
        steps.record(folder, workers)
    report = steps.conclude(folder)
    row, absent = report.rows
    assert row.name == "128x128/fake@new-u2-h"
    assert row.verdict
    assert row.verdict.outcome == Outcome.PASS
    versions = {role: report.runs[digest].versions["numpy"] for role, digest in row.runs.items()}
    here = build.version("numpy")
    assert versions == {
        **dict.fromkeys(("baseline", "replay", "reordered", "repeat"), here),
        **dict.fromkeys(("control", "candidate"), "99.0"),
    }
    assert report.environment["python of fake@new"] == str(python)
    assert "99.0 (fake@new 128x128)" in report.environment["numpy"]
    assert absent.skip == "fake has no environment 'absent' here; name its interpreter with --python fake@absent=PYTHON"


def test_another_version_there_is_another_run_and_the_baseline_stays(make_python: MakePython, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(MATRIX)
    first, second = (
        steps.prepare(tmp_path / "own.toml", python=[f"fake@new={make_python(version, numpy=version)}"])[1].rows[0].runs
        for version in ("98.0", "99.0")
    )
    assert first["baseline"] == second["baseline"]
    assert first["candidate"] != second["candidate"]
    assert first["control"] != second["control"]


def test_an_interpreter_that_no_variant_needs_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(MATRIX)
    with pytest.raises(UsageError, match=r"no variant of .*own.toml runs there; did you mean 'fake@new'\?"):
        read_matrix(tmp_path / "own.toml", ["fake@now=/x"])


def test_a_resumed_run_keeps_its_interpreters_and_takes_those_named_anew(
    make_python: MakePython, tmp_path: Path
) -> None:
    from harness.cli.run import resumed

    (tmp_path / "own.toml").write_text(MATRIX)
    old, new = make_python("old"), make_python("new", numpy="99.0")
    matrix, graph = steps.prepare(tmp_path / "own.toml", python=[f"fake@new={old}"])
    folder = RunFolder.create(tmp_path / "reports", matrix, graph, "off")
    planned = folder.plan.rows[0].runs["candidate"]
    assert resumed(folder.path).plan.rows[0].runs["candidate"] == planned
    again = resumed(folder.path, [f"fake@new={new}"]).plan
    assert again.rows[0].runs["candidate"] != planned
    assert again.specs[again.rows[0].runs["candidate"]].interpreter == str(new)
