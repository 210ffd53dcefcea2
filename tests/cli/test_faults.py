"""``sp-harness faults``: a few bugs planted for real, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import codec, plugins
from harness.types import Relation, Report
from tests.command_line import Cli, Done, invoke, one_line, only_run

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "few.toml").write_text(MATRIX)
    only = [word for name in (*CAUSES, "ring-slice-first") for word in ("--only", name)]
    done = invoke("faults", "run", "--matrix", folder / "few.toml", "--out", folder / "out", "--json", *only)
    return only_run(folder / "out"), done


def test_planted_bugs_are_found_and_the_healthy_row_passes(finished: tuple[Path, Done]) -> None:
    _, done = finished
    assert done.code == 0, done.out + done.err
    assert "Traceback" not in done.out + done.err
    score = json.loads(done.out)
    found = {fault["fault"]: (fault["by"], fault["row"], fault["found_cause"]) for fault in score["faults"]}
    row = "240x176/spatial-u2-h"
    assert found == {name: ("exchange", row, cause) for name, cause in CAUSES.items()}
    assert all(fault["detected"] for fault in score["faults"])
    assert [(each["row"], each["surplus_pads"], each["passed"]) for each in score["healthy"]] == [(row, 0, True)]
    assert score["not_planted"] == {"ring-slice-first": "ring"}


def test_the_engine_on_one_device_is_acquitted(finished: tuple[Path, Done]) -> None:
    run, _ = finished
    report = codec.read_json(run / "report.json", Report)
    for row in report.rows:
        control, exchange = row.comparison(Relation.CONTROL), row.comparison(Relation.EXCHANGE)
        assert control is not None
        assert control.exact
        assert exchange is not None
        if row.variant.fault == "gather-uncropped":
            assert "sizes differ: latents should be 1 of 30x22 cells, 16 channels, is 1 of" in (exchange.problem or "")


def test_a_finished_score_is_told_again_and_merged_folders_have_one(
    cli: Cli, finished: tuple[Path, Done], tmp_path: Path
) -> None:
    run, first = finished
    merged = cli("merge", run, "--out", tmp_path)
    assert merged.code == 1, merged.out + merged.err
    (place,) = tmp_path.iterdir()
    again = cli("faults", "run", "--resume", place, "--json")
    assert again.code == 0, again.out + again.err
    scores = [json.loads(text) for text in (first.out, again.out)]
    same = [{key: score[key] for key in ("faults", "healthy", "not_planted", "setting")} for score in scores]
    assert same[0] == same[1]
    assert scores[1]["name"] == place.name


def test_nothing_stands_beside_resume(cli: Cli) -> None:
    done = cli("faults", "run", "--resume", "out/x", "--dtype", "bfloat16")
    one_line(done, "--resume finishes what was planned")


def test_gates_on_the_whole_picture_pass_the_faint_bug(finished: tuple[Path, Done]) -> None:
    faults = {fault["fault"]: fault["gates"] for fault in json.loads(finished[1].out)["faults"]}
    assert faults["rope-eight-tokens"]["SGLang, Z-Image"] == "passes"
    assert faults["rope-eight-tokens"]["FastVideo, .98"] == "passes"
    assert faults["attention-local"]["FastVideo, .98"] == "fails"


def test_the_score_stays_in_the_run_folder(finished: tuple[Path, Done]) -> None:
    run, done = finished
    assert json.loads((run / "killscore.json").read_text()) == json.loads(done.out)
    table = (run / "killscore.md").read_text()
    assert "5 of 5 planted bugs found, 5 with the right cause" in table
    assert (run / "report.json").is_file()


def test_ls_lists_every_bug(cli: Cli) -> None:
    done = cli("faults", "ls")
    assert done.code == 0
    assert [line.partition(":")[0] for line in done.out.splitlines()] == plugins.names("faults")
    assert "ring-slice-first: cut/gather; needs ring; https://" in done.out


def test_a_matrix_that_can_show_nothing_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(MATRIX)
    done = cli("faults", "run", "--matrix", tmp_path / "few.toml", "--only", "ring-slice-first")
    one_line(done, "no row can show ring-slice-first")
