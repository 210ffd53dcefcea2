"""Accounting of the kill score, on runs of the fake engine and on figures made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.kill_score import score
from harness.kill_score.planting import Place
from harness.kill_score.score import FaultScore, HealthyScore, KillScore
from harness.kill_score.table import markdown
from harness.runs.sample import Sample
from harness.session import steps

FAKE = """
schema = 1
name = "bench"
model = "fake"
steps = 2

[[case]]
size = ["128x128", "144x144"]
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
fault = "attention-local"
"""


@pytest.fixture
def scored(bench, monkeypatch: pytest.MonkeyPatch):
    """Two healthy rows; the bug breaks the candidate of 144x144 and leaves that of 128x128 alone."""
    from harness.engines.fake import FakeEngine

    monkeypatch.setattr(FakeEngine, "faults", classmethod(lambda engine: ("attention-local",)))

    def edit(spec, drawing):
        if spec.fault and spec.world_size > 1 and spec.case.name == "144x144":
            drawing.latents = drawing.latents + 1
            drawing.images = [image.rotate(90) for image in drawing.images]

    folder = bench.drawn(FAKE, "off", edit)

    def scored_cases(*cases: str, sample=None) -> KillScore:
        places = [Place("attention-local", tuple((case, "fake-u2-h") for case in cases))]
        return score.score(steps.conclude(folder), places, {}, sample or folder.sample)

    return scored_cases


def test_a_bug_is_found_where_its_row_fails(scored):
    (fault,) = scored("144x144").faults
    assert (fault.detected, fault.by, fault.row) == (True, "exchange", "144x144/fake-u2-h")
    assert fault.gates["diffusers"] == "fails"
    assert fault.gates["FastVideo, .70"] == "n/a"
    assert scored("144x144").exit_code == 0


def test_a_bug_is_missed_where_its_row_passes(scored):
    score = scored("128x128")
    assert not score.faults[0].detected
    assert not score.faults[0].cause_right
    assert set(score.faults[0].gates.values()) == {"passes", "n/a"}
    assert score.exit_code == 1


def test_a_bug_is_found_at_the_first_request_that_fails(scored):
    (fault,) = scored("128x128", "144x144").faults
    assert (fault.detected, fault.row) == (True, "144x144/fake-u2-h")


def test_healthy_rows_are_held_to_the_gates_too(scored):
    score = scored("144x144")
    assert [(row.row, row.surplus_pads, row.passed) for row in score.healthy] == [
        ("128x128/fake-u2-h", 0, True),
        ("144x144/fake-u2-h", 32, True),
    ]
    assert score.healthy[0].gates["diffusers"] == "passes"
    assert score.healthy[1].gates["diffusers"] == "fails"


def test_a_run_without_a_picture_fails_every_gate(scored):
    score = scored("144x144", sample=lambda run: Sample("", (), None))
    assert set(score.faults[0].gates.values()) == {"fails"}


# ---------------------------------------------------------------- the table


BUG = FaultScore("bug", "https://x", "mask", "row", True, "exchange", "mask", "", {"diffusers": "fails"})
HEALTHY = HealthyScore("row", 32, True, "", {"diffusers": "fails"})


def _line(score: KillScore, start: str) -> list[str]:
    (line,) = [line for line in markdown(score).splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("faulty", "healthy", "by", "counts"),
    [
        ("fails", "passes", "exchange", ["1", "0", "0", "0"]),
        ("fails", "fails", "exchange", ["0", "1", "0", "0"]),
        ("fails", "fails", "no picture", ["1", "0", "0", "0"]),
        ("passes", "passes", "exchange", ["0", "0", "1", "0"]),
        ("n/a", "n/a", "exchange", ["0", "0", "0", "1"]),
    ],
)
def test_a_gate_that_fails_the_healthy_row_too_has_found_nothing(faulty, healthy, by, counts):
    bug = replace(BUG, by=by, gates={"diffusers": faulty}, healthy_gates={"diffusers": healthy})
    score = KillScore("run", (bug,), (HEALTHY,), {})
    assert _line(score, "diffusers")[2:6] == counts


def test_a_bug_at_a_row_that_fails_anyway_is_not_found():
    score = KillScore("run", (replace(BUG, healthy_passed=False),), (replace(HEALTHY, passed=False),), {})
    assert _line(score, "sp-harness")[2:6] == ["0", "1", "0", "0"]
    assert _line(score, "[bug](https://x)")[2] == "**fails anyway**"
    crash = replace(BUG, healthy_passed=False, by="no picture")
    assert _line(KillScore("run", (crash,), (HEALTHY,), {}), "sp-harness")[2] == "1"


def test_healthy_rows_that_some_gate_fails_are_shown_and_the_others_counted():
    rows = [HEALTHY, *[replace(HEALTHY, row="sound", gates={"diffusers": "passes"})] * 3]
    text = markdown(KillScore("run", (BUG,), tuple(rows), {}))
    assert "| row | 32 | passes |" in text
    assert "sound" not in text
    assert "3 others pass every gate" in text


def test_false_alarms_are_counted_over_the_rows_a_gate_can_judge():
    rows = [replace(HEALTHY, gates={"diffusers": word}) for word in ("fails", "passes", "n/a")]
    clean = replace(HEALTHY, surplus_pads=0, gates={"diffusers": "passes"})
    assert _line(KillScore("run", (BUG,), (*rows, clean), {}), "diffusers")[-2:] == ["0 of 1", "1 of 2"]


def test_a_wrong_cause_is_shown_with_the_right_one():
    score = KillScore("run", (replace(BUG, found_cause="position"),), (HEALTHY,), {"other": "ring"})
    text = markdown(score)
    assert "1 of 1 planted bugs found, 0 with the right cause" in text
    assert "position (is mask)" in text
    assert "Not planted: other; no row of the matrix has ring." in text


def test_the_exit_code_is_that_of_missed_bugs_and_failing_rows():
    assert KillScore("run", (BUG,), (HEALTHY,), {}).exit_code == 0
    assert KillScore("run", (replace(BUG, detected=False),), (HEALTHY,), {}).exit_code == 1
    assert KillScore("run", (BUG,), (replace(HEALTHY, passed=False),), {}).exit_code == 1
