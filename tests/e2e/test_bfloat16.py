"""Bugs and healthy rows in a type whose rounding hides much: the noise floor is several draws, and calibrated."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command_line import invoke, only_run

MATRIX = Path(__file__).with_name("bf16-floor-by-luck.toml")
"""Its reversed order changes no bit with seeds 0 and 3: healthy rows failed where equality was asked for."""

CAUSES = {"caption-offset-local": "position", "timestep-rounded": "schedule", "latents-half-precision": "noise"}
"""Bugs that one draw with a margin of 10 dB did not see."""


def test_rows_at_the_floor_pass_and_bugs_a_few_decibels_above_it_fail(tmp_path: Path) -> None:
    only = [word for name in CAUSES for word in ("--only", name)]
    done = invoke("faults", "run", "--matrix", MATRIX, "--out", tmp_path, "--json", *only)
    assert done.code == 0, done.out + done.err
    score = json.loads(done.out)
    assert {fault["fault"]: fault["found_cause"] for fault in score["faults"]} == CAUSES
    assert [row["passed"] for row in score["healthy"]] == [True]
    report = json.loads((only_run(tmp_path) / "report.json").read_bytes())
    rounded = next(row for row in report["rows"] if row["variant"]["fault"] == "timestep-rounded")
    assert len([each for each in rounded["comparisons"] if each["relation"] == "floor"]) == 4
    assert "standard deviations" in rounded["verdict"]["sentence"]
    (basis, *_) = {each["bound"]["basis"] for each in rounded["verdict"]["judgements"] if each["bound"]}
    assert "healthy comparisons of nano on cpu in bfloat16" in basis
