"""``sp-harness faults``: a few bugs planted for real, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import codec, plugins
from harness.types import Relation, Report

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


CAUSES = {
    "attention-local": "exchange",
    "gather-swapped": "cut/gather",
    "gather-uncropped": "cut/gather",
    "rope-eight-tokens": "position",
    "rope-origin-dropped": "position",
}
"""Bugs that are planted, and what they are found to be."""


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
    only = [word for name in (*CAUSES, "ring-slice-first") for word in ("--only", name)]
    return folder, command(folder, "run", "--matrix", "few.toml", "--out", "out", "--json", *only)


def test_planted_bugs_are_found_and_the_healthy_row_passes(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    score = json.loads(done.stdout)
    found = {fault["fault"]: (fault["by"], fault["row"], fault["found_cause"]) for fault in score["faults"]}
    row = "240x176/spatial-u2-h"
    assert found == {name: ("exchange", row, cause) for name, cause in CAUSES.items()}
    assert all(fault["detected"] for fault in score["faults"])
    assert [(each["row"], each["surplus_pads"], each["passed"]) for each in score["healthy"]] == [(row, 0, True)]
    assert score["not_planted"] == {"ring-slice-first": "ring"}


def test_the_engine_on_one_device_is_acquitted(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    (run,) = (finished[0] / "out").iterdir()
    report = codec.read_json(run / "report.json", Report)
    for row in report.rows:
        control, exchange = row.comparison(Relation.CONTROL), row.comparison(Relation.EXCHANGE)
        assert control is not None
        assert control.exact
        assert exchange is not None
        if row.variant.fault == "gather-uncropped":
            assert "sizes differ: latents should be 1 of 30x22 cells, 16 channels, is 1 of" in (exchange.problem or "")


def test_a_finished_score_is_told_again_and_merged_folders_have_one(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, first = finished
    (run,) = (folder / "out").iterdir()
    merged = subprocess.run(
        [sys.executable, "-m", "harness.cli", "merge", str(run), "--out", "merged"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert merged.returncode == 1, merged.stdout + merged.stderr
    (place,) = (folder / "merged").iterdir()
    again = command(folder, "run", "--resume", str(place), "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    scores = [json.loads(text) for text in (first.stdout, again.stdout)]
    same = [{key: score[key] for key in ("faults", "healthy", "not_planted", "setting")} for score in scores]
    assert same[0] == same[1]
    assert scores[1]["name"] == place.name


def test_nothing_stands_beside_resume(tmp_path: Path) -> None:
    done = command(tmp_path, "run", "--resume", "out/x", "--dtype", "bfloat16")
    assert done.returncode == 2
    assert "--resume finishes what was planned" in done.stderr


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
    assert "5 of 5 planted bugs found, 5 with the right cause" in table
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
