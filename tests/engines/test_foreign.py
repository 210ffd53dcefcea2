"""Engines that other people ship, on two real ranks: one run serves all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import plugins
from harness.execution.pool import Pool
from harness.matrix.loader import read_matrix
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome, Pads, Report, Row

ROOT = Path(__file__).resolve().parents[2]
LONG = "a red ball left of a blue cube " * 5

MATRIX = f"""
schema = 1
model = "nano"
steps = 2
golden = "off"
golden_store = "golden"

[[case]]
name = "plain"
size = "144x144"
prompt = "a red ball"

[[case]]
name = "masked"
size = "112x80"
prompt = ["a red ball", "{LONG}"]

[[case]]
name = "cached"
size = "144x144"
prompt = "a red ball"
steps = 6

[[variant]]
engine = "diffusers-cp"
ulysses = 2
axis = "none"
cases = ["plain", "masked"]

[[variant]]
engine = "cache-dit"
ulysses = 2
axis = "none"
cases = ["plain", "masked"]

[[variant]]
engine = "cache-dit"
ulysses = 2
axis = "none"
cache = "cache-dit"
options = {{ cache_mask = "110101" }}
cases = ["cached"]
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "foreign.toml").write_text(MATRIX, encoding="utf-8")
    matrix, graph = steps.prepare(folder / "foreign.toml")
    run = RunFolder.create(folder, matrix, graph, "off")
    with Pool(run.path / "logs") as workers:
        steps.record(run, workers)
    return steps.conclude(run)


def by_name(report: Report) -> dict[str, Row]:
    return {f"{row.variant.engine} {row.case.name}": row for row in report.rows}


def test_every_sound_row_passes_in_one_file(report: Report) -> None:
    said = {name: row.verdict.sentence for name, row in by_name(report).items() if row.verdict}
    outcomes = {name: row.verdict.outcome for name, row in by_name(report).items() if row.verdict}
    assert set(outcomes.values()) == {Outcome.PASS}, said
    assert len(outcomes) == 5


def test_their_ranks_are_seen_to_exchange_tokens(report: Report) -> None:
    for row in report.rows:
        sent = report.runs[row.runs["candidate"]].counters["collective_bytes"]
        assert sent > 1000 * row.case.size.tokens, row.name
        assert "collective_bytes" not in report.runs[row.runs["control"]].counters


def test_they_pad_as_one_device_does(report: Report) -> None:
    rows = by_name(report)
    assert rows["cache-dit plain"].pads == Pads(15, 15)
    assert rows["cache-dit plain"].runs["replay"] == rows["cache-dit plain"].runs["baseline"]


def test_their_versions_and_decisions_are_recorded(report: Report) -> None:
    cached = by_name(report)["cache-dit cached"]
    candidate = report.runs[cached.runs["candidate"]]
    assert {"cache-dit", "diffusers", "torch"} <= set(candidate.versions)
    assert candidate.cache_decisions == ((False, False, True, False, True, False),) * 2


def test_what_they_cannot_do_is_a_skip_with_a_reason() -> None:
    matrix = read_matrix(ROOT / "matrices" / "engines.toml")
    assert {variant.engine for variant in matrix.variants} == {"diffusers-cp", "cache-dit", "sglang", "xfuser"}
    case, _ = matrix.cases[0], None
    model = steps.models.resolve("nano", None)
    for name in ("diffusers-cp", "cache-dit"):
        engine = plugins.load("engines", name)
        (plain,) = [v for v in matrix.variants if (v.engine, v.ulysses, v.cache) == (name, 2, "none")]
        ring = type(plain)(name, 1, 2, axis="none")
        assert "ring" in engine.limits(case, ring, model)
        assert "does not divide" in engine.limits(case, type(plain)(name, 2, axis="none"), type(model)("m", "", "", 3))
        assert engine.limits(case, plain, model) is None
