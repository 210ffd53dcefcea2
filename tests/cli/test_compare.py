from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.types import FailureKind
from tests.command_line import CASE, HEAD, OFF, ONE_ROW, VARIANT, Cli, Write, one_line, only_run

FOUR_RANKS = VARIANT.replace("= 2", "= 4")
"""Skipped: four ranks do not divide the heads."""


def test_rows_are_chosen_recorded_and_compared_later(cli: Cli, write: Write, tmp_path: Path) -> None:
    chosen = ("--size", "144x144", "--axis", "w", "--engine", "fake")
    done = cli("run", write(), "--out", tmp_path / "out", "--no-judge", *chosen)
    assert done.code == 0
    run = only_run(tmp_path / "out")
    assert f"recorded; judge it with: sp-harness compare {run}" in done.out
    assert not (run / "report.json").exists()
    one_line(cli("report", run), str(run), "report.json", f"sp-harness compare {run}")
    before = {path: path.stat().st_mtime_ns for path in run.glob("runs/*/*")}

    done = cli("compare", run)
    assert done.code == 0
    assert "1 pass" in done.out
    report = json.loads((run / "report.json").read_text())
    assert [(row["case"]["name"], row["variant"]["axis"]) for row in report["rows"]] == [("144x144", "w")]
    assert len(report["runs"]) == 6  # also the baseline reordered and repeated
    assert {path: path.stat().st_mtime_ns for path in run.glob("runs/*/*")} == before

    (run / "index.html").unlink()
    (run / "summary.md").write_text("")
    done = cli("report", run)
    assert done.code == 0
    assert str(run / "index.html") in done.out.split()
    assert (run / "index.html").is_file()
    assert (run / "summary.md").read_text()


@pytest.mark.parametrize(
    ("variants", "damaged", "code", "verdicts"),
    [
        pytest.param(VARIANT, "nothing", 0, "1 pass", id="all well"),
        pytest.param(VARIANT, "candidate", 1, "1 fail", id="a comparison fails"),
        pytest.param(FOUR_RANKS, "nothing", 2, "1 skip", id="nothing is judged"),
        pytest.param(VARIANT + FOUR_RANKS, "nothing", 3, "1 pass, 1 skip", id="a required skip"),
        pytest.param(VARIANT + FOUR_RANKS + "required = false\n", "nothing", 0, "1 pass, 1 skip", id="another skip"),
        pytest.param(VARIANT + FOUR_RANKS, "candidate", 1, "1 fail, 1 skip", id="1 before 3"),
    ],
)
def test_exit_codes(
    cli: Cli, bench: Any, repaint: Callable[..., Any], variants: str, damaged: str, code: int, verdicts: str
) -> None:
    folder = bench.drawn(HEAD + OFF + CASE + variants, "off", repaint(damaged))
    done = cli("compare", folder.path)
    assert done.code == code, done.out + done.err
    assert f"{verdicts} in " in done.out
    assert done.out.splitlines()[-2].endswith(f"exit code {code}")
    assert json.loads((folder.path / "report.json").read_text())["exit_code"] == code


@pytest.mark.parametrize(
    ("kind", "code", "verdict"),
    [
        (FailureKind.RAISED, 1, "1 error"),
        (FailureKind.HUNG, 1, "1 timeout"),
        (FailureKind.KILLED, 3, "1 error"),
        (FailureKind.LAUNCH, 3, "1 error"),
    ],
)
def test_exit_codes_of_runs_without_a_picture(cli: Cli, bench: Any, kind: FailureKind, code: int, verdict: str) -> None:
    folder = bench.plan(ONE_ROW, "off")
    for spec in folder.plan.specs.values():
        if spec.world_size > 1:
            bench.fail(folder, spec, kind)
        else:
            bench.draw(folder, [spec])
    done = cli("compare", folder.path)
    assert done.code == code
    assert f"{verdict} in " in done.out
    assert f"the engine {kind.value}" in done.out


@pytest.mark.parametrize(
    ("file", "commands"),
    [
        ("plan.json", ["run --resume", "compare", "approve"]),
        ("report.json", ["report"]),
    ],
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 2}', ["schema 2 is newer than 1", "update sp-harness"]),
        ("{", ["no valid JSON"]),
        ("[]", ["is no"]),
        ('{"name": "x"}', ["is no"]),
        ('{"name": "x", "matrix": 3, "rows": 4, "specs": 5}', ["is no"]),
    ],
    ids=["newer", "half", "list", "incomplete", "nonsense"],
)
def test_files_of_a_run_that_are_not_ours_are_one_line(
    cli: Cli, tmp_path: Path, file: str, commands: list[str], text: str, words: list[str]
) -> None:
    (tmp_path / file).write_text(text)
    for command in commands:
        one_line(cli(*command.split(), tmp_path), str(tmp_path / file), *words)
