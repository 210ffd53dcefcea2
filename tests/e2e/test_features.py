"""The SP system's features on real processes, held to diffusers' own pipeline."""

from __future__ import annotations

import pytest

from harness.execution.pool import Pool
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome, Relation

FLOOR_DB = 120.0
"""What float32 must keep where the mathematics is the same; correct runs lie at 126 dB and above."""

MATRIX = """
schema = 1
model = "nano"
steps = 2
golden = "off"

[[case]]
name = "buckets"
size = "144x144"
prompt = ["a ball", "a green cone in front of a white ring, a blue ball behind it, tiles, evening light, long shadows"]

[[case]]
name = "guided"
size = "144x144"
prompt = "a ball"
guidance_scale = 4.0
negative_prompt = "a green cone in front of a white ring, a blue ball behind it, tiles, evening light, long shadows"
num_images_per_prompt = 2

[[case]]
name = "cached"
size = "144x144"
prompt = "a red ball left of a blue cube, tiles, day"
steps = 8

[[case]]
sequence = "again"
size = ["320x144", "144x320", "320x144"]
prompt = "a ball"

[[variant]]
engine = "spatial"
ulysses = 2
axis = ["h", "w"]
layout = ["aligned", "exact"]
cases = ["buckets", "guided"]

[[variant]]
engine = "spatial"
ring = 2
axis = "h"
layout = ["aligned", "exact"]
cases = ["buckets", "guided"]

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
layout = ["aligned", "exact"]
cache = "cache-dit"
cases = ["cached"]

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
cache = "cache-dit"
options = { cache_threshold = 0.01 }
cases = ["cached"]

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
cases = ["again-*"]
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    (folder / "features.toml").write_text(MATRIX)
    matrix, graph = steps.prepare(folder / "features.toml")
    run_folder = RunFolder.create(folder / "reports", matrix, graph, "off")
    with Pool(run_folder.path / "logs") as pool:
        steps.record(run_folder, pool)
    return steps.conclude(run_folder)


def latents_db(row, relation):
    comparison = row.comparison(relation)
    if comparison.exact:
        return float("inf")
    return comparison.figure("psnr", "latents").value


def test_every_row_but_the_idle_cache_passes(report):
    outcomes = {row.name: row.verdict.outcome for row in report.rows}
    idle = "cached/spatial-u2-h-cache-dit-cache_threshold=0.01"
    assert outcomes.pop(idle) == Outcome.ERROR
    assert set(outcomes.values()) == {Outcome.PASS}
    verdict = next(row.verdict for row in report.rows if row.name == idle)
    assert "never served a step" in verdict.sentence


def test_splitting_costs_nothing_in_any_feature(report):
    for row in report.rows:
        assert latents_db(row, Relation.EXCHANGE) >= FLOOR_DB, row.name
        assert row.comparison(Relation.CONTROL).exact, row.name


def test_exact_equals_one_device_where_aligned_is_far_from_it(report):
    for row in report.rows:
        pair = latents_db(row, Relation.PAIR)
        if row.variant.layout == "exact":
            assert pair >= FLOOR_DB, row.name
            if row.variant.axis == "h":  # the order of tokens is that of one device
                assert pair == float("inf"), row.name
        elif row.plan.surplus_pad_tokens:
            assert pair < 60, row.name


def test_cache_served_steps_on_every_rank_alike(report):
    rows = [row for row in report.rows if row.variant.cache != "none" and row.verdict.outcome == Outcome.PASS]
    assert len(rows) == 2
    for row in rows:
        decisions = report.runs[row.runs["candidate"]].cache_decisions
        assert len(decisions) == 2
        assert decisions[0] == decisions[1]
        assert sum(decisions[0]) == 3
        assert "served 3 of 8 steps" in row.verdict.sentence


def test_a_sequence_is_served_in_order_by_one_engine_of_its_own(report):
    rows = [row for row in report.rows if row.case.sequence]
    digests = [row.runs["candidate"] for row in rows]
    assert [report.runs[digest].spec.after for digest in digests] == ["", *digests[:-1]]
    assert rows[0].runs["baseline"] == rows[2].runs["baseline"]
    assert digests[0] != digests[2]


def test_exact_sends_fewer_bytes_than_aligned(report):
    def sent(variant):
        row = next(row for row in report.rows if row.name == f"buckets/{variant}")
        return report.runs[row.runs["candidate"]].counters["exchanged_bytes"]

    assert 0 < sent("spatial-u2-h-exact") < sent("spatial-u2-h")


def test_trajectories_are_compared_after_every_step(report):
    for row in report.rows:
        if row.variant.cache == "none" and not row.comparison(Relation.PAIR).exact:
            assert len(row.comparison(Relation.PAIR).steps_db) == row.case.steps
