"""``sp-harness faults``: a few bugs planted for real, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import plugins

MATRIX = """\
schema = 1
name = "few"
model = "nano"
steps = 2
golden = "off"

[[case]]
size = "240x176"
prompt = "a red ball left of a blue tower at night"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "faults", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "few.toml").write_text(MATRIX)
    only = [word for name in ("attention-local", "rope-eight-tokens", "ring-slice-first") for word in ("--only", name)]
    return folder, command(folder, "run", "--matrix", "few.toml", "--out", "out", "--json", *only)


def test_planted_bugs_are_found_and_the_healthy_row_passes(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    score = json.loads(done.stdout)
    found = {fault["fault"]: (fault["detected"], fault["by"], fault["row"]) for fault in score["faults"]}
    row = "240x176/spatial-u2-h"
    assert found == dict.fromkeys(("attention-local", "rope-eight-tokens"), (True, "exchange", row))
    assert [(each["row"], each["surplus_pads"], each["passed"]) for each in score["healthy"]] == [(row, 0, True)]
    assert score["not_planted"] == {"ring-slice-first": "ring"}


def test_gates_on_the_whole_picture_pass_the_faint_bug(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    faults = {fault["fault"]: fault["gates"] for fault in json.loads(finished[1].stdout)["faults"]}
    assert faults["rope-eight-tokens"]["SGLang, Z-Image"] == "passes"
    assert faults["rope-eight-tokens"]["FastVideo, .98"] == "passes"
    assert faults["attention-local"]["FastVideo, .98"] == "fails"


def test_the_score_stays_in_the_run_folder(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    (run,) = (finished[0] / "out").iterdir()
    assert json.loads((run / "killscore.json").read_text()) == json.loads(finished[1].stdout)
    table = (run / "killscore.md").read_text()
    assert "2 of 2 planted bugs found" in table
    assert (run / "report.json").is_file()


def test_ls_lists_every_bug(tmp_path: Path) -> None:
    done = command(tmp_path, "ls")
    assert done.returncode == 0
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == plugins.names("faults")
    assert "ring-slice-first: cut/gather; needs ring; https://" in done.stdout


def test_a_matrix_that_can_show_nothing_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(MATRIX)
    done = command(tmp_path, "run", "--matrix", "few.toml", "--only", "ring-slice-first")
    assert done.returncode == 2
    assert "no row can show ring-slice-first" in done.stderr
