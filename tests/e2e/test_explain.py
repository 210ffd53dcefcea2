"""Planted bugs on two real ranks, drawn once more with a probe: what is counted, where it begins, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import plugins
from harness.errors import UsageError
from harness.execution.pool import Pool
from harness.runs.folder import RunFolder
from harness.session import explain, steps
from harness.types import Explanation, LedgerLine, Outcome, Report, Row

FAULTS = (
    "attention-local",
    "caption-twice",
    "gather-swapped",
    "gather-uncropped",
    "noise-unseeded",
    "origins-swapped",
    "pads-doubled",
    "rope-eight-tokens",
    "rope-origin-dropped",
)
HEALTHY = "plain/spatial-u2-h"
MATRIX = """
schema = 1
model = "nano"
steps = 2
golden = "off"

[[case]]
name = "plain"
size = "144x144"
prompt = "a red ball left of a blue tower at night"

[[case]]
sequence = "again"
size = ["176x144", "144x176"]
prompt = "a red ball"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
cases = ["plain"]

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
fault = "rope-table-kept"
cases = ["again-*"]
""" + "".join(
    f'\n[[variant]]\nengine = "spatial"\nulysses = 2\naxis = "h"\nfault = "{fault}"\ncases = ["plain"]\n'
    for fault in FAULTS
)


@pytest.fixture(autouse=True)
def _this_code() -> None:
    """No process starts in another folder here; in an unchanged environment all ranks come from one forkserver."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is drawn and explained; the healthy row too, because it is named."""
    root = tmp_path_factory.mktemp("explain")
    (root / "explain.toml").write_text(MATRIX)
    matrix, graph = steps.prepare(root / "explain.toml")
    made = RunFolder.create(root / "reports", matrix, graph, "off")
    with Pool(made.path / "logs") as pool:
        steps.record(made, pool)
    first = steps.conclude(made)
    rows = [*explain.select(first.rows), *explain.select(first.rows, [HEALTHY])]
    assert explain.explain(made, rows) == []
    return made


@pytest.fixture(scope="module")
def report(folder: RunFolder) -> Report:
    return steps.conclude(folder)


def row_of(report: Report, fault: str) -> Row:
    return next(row for row in reversed(report.rows) if row.variant.fault == fault)


def inside_of(row: Row) -> Explanation:
    assert row.explanation is not None
    return row.explanation


def lines_of(row: Row, module: str, step: int = 1) -> Sequence[LedgerLine]:
    return [line for line in inside_of(row).ledger if (line.step, line.module) == (step, module)]


@pytest.mark.parametrize("fault", [*FAULTS, "rope-table-kept"])
def test_the_cause_is_the_faults_own(report: Report, fault: str) -> None:
    verdict = row_of(report, fault).verdict
    assert verdict is not None
    assert verdict.outcome == Outcome.FAIL
    assert verdict.cause == plugins.load("faults", fault).cause
    assert f"Cause: {verdict.cause} (" in verdict.sentence
    assert len(verdict.evidence) > 1


def test_a_healthy_row_meets_every_token_once_in_every_block(report: Report) -> None:
    row = next(row for row in report.rows if row.name == HEALTHY)
    inside = inside_of(row)
    assert row.verdict is not None
    assert (row.verdict.outcome, row.verdict.cause, row.verdict.evidence) == (Outcome.PASS, None, ())
    assert {(line.step, line.module) for line in inside.ledger} == {
        (step, f"{name}.0") for step in (1, 2) for name in ("noise_refiner", "layers")
    } | {(1, "context_refiner.0")}  # computed once for all steps
    assert all(line.clean for line in inside.ledger)
    assert [(line.image_met, line.pads_met) for line in lines_of(row, "noise_refiner.0")] == [(81, 47), (81, 47)]
    assert inside.first_divergence is None
    assert max(block.error or 0.0 for block in inside.blocks) < inside.tolerance / 50
    assert dict(inside.redrawn_db) == {"reference": None, "candidate": None}


def test_attention_that_stays_local_misses_the_other_ranks_tokens(report: Report) -> None:
    first, second = lines_of(row_of(report, "attention-local"), "noise_refiner.0")
    assert (first.image_met, first.image_missing) == (45, 36)
    assert (second.image_met, second.image_missing) == (36, 45)
    assert first.sentence.startswith("rank 0 meets 45 of 81 image tokens (missing 36)")


def test_a_caption_that_enters_twice_is_met_twice(report: Report) -> None:
    row = row_of(report, "caption-twice")
    assert all(line.clean for line in lines_of(row, "noise_refiner.0"))
    for line in lines_of(row, "layers.0"):
        assert line.image_met == 81
        assert line.sentence.endswith("caption twice")


@pytest.mark.parametrize(("fault", "met"), [("rope-origin-dropped", 45), ("origins-swapped", 0)])
def test_wrong_origins_leave_values_and_move_keys(report: Report, fault: str, met: int) -> None:
    for line in lines_of(row_of(report, fault), "noise_refiner.0"):
        assert line.image_met + line.wrong_position == 81
        assert met <= line.image_met < 81
        assert (line.foreign, line.image_missing) == (0, 0)


def test_pads_are_counted(report: Report) -> None:
    for line in lines_of(row_of(report, "pads-doubled"), "noise_refiner.0"):
        assert (line.pads, line.image_met) == (47, 81)
        assert line.pads_met > 47


def test_eight_tokens_in_one_deep_layer_are_found_there(report: Report) -> None:
    inside = inside_of(row_of(report, "rope-eight-tokens"))
    first = inside.first_divergence
    assert first is not None
    assert first.step == 1
    assert first.module.startswith("layers.")
    wrong = next(line for line in inside.ledger if not line.clean)
    assert (wrong.module, wrong.wrong_position) == (first.module, 8)


def test_a_swapped_gather_is_seen_behind_blocks_that_are_all_right(report: Report) -> None:
    inside = inside_of(row_of(report, "gather-swapped"))
    assert all(line.clean for line in inside.ledger)
    assert inside.first_divergence is None
    assert [(part.rank, part.at_px, part.origin_px) for part in inside.displaced] == [(0, 64, 0), (1, 0, 80)]


def test_the_box_and_the_map_speak_of_the_same_tokens(report: Report) -> None:
    inside = inside_of(row_of(report, "rope-origin-dropped"))
    first = inside.first_divergence
    assert first is not None
    assert len(inside.token_errors) == 81
    beyond = [error for error in inside.token_errors if error is None or error > inside.tolerance]
    assert len(beyond) == first.tokens == 81
    assert first.box_px == (0, 0, 144, 144)


def test_a_second_request_is_drawn_behind_the_first(report: Report) -> None:
    row = row_of(report, "rope-table-kept")
    assert row.case.size.width_px == 144
    assert dict(inside_of(row).redrawn_db) == {"reference": None, "candidate": None}


def test_probed_runs_are_no_part_of_the_run(folder: RunFolder, report: Report) -> None:
    assert not any(run.spec.probe for run in report.runs.values())
    assert not list(folder.path.rglob("probe-rank-*"))
    assert {path.name for path in (folder.path / "runs").iterdir()} == set(folder.plan.specs)
    assert not (folder.path / "explained" / "runs").exists()


def test_judging_again_elsewhere_knows_the_causes(folder: RunFolder, report: Report) -> None:
    again = steps.conclude(RunFolder.open(folder.path))
    assert [row.verdict for row in again.rows] == [row.verdict for row in report.rows]


def test_every_report_format_shows_the_evidence(folder: RunFolder, report: Report) -> None:
    steps.write_reports(report, folder.path)
    pages = "".join(path.read_text(encoding="utf-8") for path in (folder.path / "rows").iterdir())
    summary, junit = (Path(folder.path, name).read_text(encoding="utf-8") for name in ("summary.md", "junit.xml"))
    for name, text in (("pages", pages), ("summary.md", summary), ("junit.xml", junit)):
        assert "first divergence: step 1" in text, name
        assert "caption twice" in text, name
    assert pages.count('class="evidence"') == len(FAULTS) + 1
    assert pages.count('class="tokens"') >= 4


def test_what_cannot_be_explained_says_why(report: Report) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        explain.select(report.rows, ["plain/spatial-u2-hh"])


def test_the_command_line_explains_by_hand_and_leaves_it_out_when_told(cli: Any, write: Any, tmp_path: Path) -> None:
    one = MATRIX.partition("[[variant]]")[0].partition("[[case]]\nsequence")[0]
    fault = "attention-local"
    text = f'{one}[[variant]]\nengine = "spatial"\nulysses = 2\naxis = "h"\nfault = "{fault}"\n'
    done = cli("run", write(text, "one.toml"), "--out", tmp_path / "out", "--no-explain")
    assert (done.code, "Cause:" in done.out) == (1, False)
    (run,) = (tmp_path / "out").iterdir()
    assert not (run / "explained").exists()
    done = cli("explain", run)
    assert done.code == 1
    assert "Cause: exchange (step 1, noise_refiner.0: rank 0 meets 45 of 81" in done.out.replace("\n", " ")
    assert "rank 0 meets 45 of 81" in (run / "summary.md").read_text(encoding="utf-8")


def test_rows_without_anything_to_listen_to(cli: Any, write: Any, tmp_path: Path) -> None:
    assert cli("run", write(), "--out", tmp_path / "out").code == 0
    (run,) = (tmp_path / "out").iterdir()
    done = cli("explain", run)
    assert (done.code, "no row fails" in done.out) == (0, True)
    done = cli("explain", run, "144x144/fake-u2-h")
    assert done.code == 2
    assert "the engine fake does not run on torch" in done.err
