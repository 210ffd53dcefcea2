"""Real releases in environments of their own; ``make test-engines`` sets these up and runs this file.

One run of the rows of ``matrices/engines.toml`` serves all tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.execution.pool import Pool
from harness.matrix.selection import Selection
from harness.runs.folder import RunFolder
from harness.session import explain, steps
from harness.types import Outcome, Relation, Report, Verdict

MATRIX = Path(__file__).resolve().parents[2] / "matrices" / "engines.toml"
SIZES = ("144x144", "208x336", "240x176")
CACHED = "auto-cache-dit-cache_mask=110101"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    matrix, graph = steps.prepare(MATRIX, Selection(engines=["sglang", "xfuser"]))
    run = RunFolder.create(tmp_path_factory.mktemp("releases"), matrix, graph, "off")
    with Pool(run.path / "logs") as workers:
        steps.record(run, workers)
    explain.explain(run, explain.select(steps.conclude(run).rows))
    return steps.conclude(run)


def verdict_of(report: Report, name: str) -> Verdict:
    (verdict,) = (row.verdict for row in report.rows if row.name == name)
    assert verdict is not None
    assert verdict.outcome != Outcome.SKIP, f"{verdict.sentence}; see make test-engines"
    return verdict


@pytest.mark.parametrize("size", SIZES)
def test_a_release_before_the_fix_fails_on_one_device_and_when_split(report: Report, size: str) -> None:
    verdict = verdict_of(report, f"{size}/sglang@0.5.9-u2-auto")
    failing = {judgement.relation for judgement in verdict.judgements if judgement.ok is False}
    assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, "pads")
    assert Relation.CONTROL in failing
    assert failing & {Relation.EXCHANGE, Relation.OWN_EXCHANGE}  # the latter where no pads are in surplus


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("release", ["0.5.10.post1-u2", "0.5.12.post1-u2", "0.5.23-u2", "0.5.23-u3"])
def test_later_releases_pass_at_even_and_uneven_sizes(report: Report, release: str, size: str) -> None:
    verdict = verdict_of(report, f"{size}/sglang@{release}-auto")
    assert verdict.outcome == Outcome.PASS, verdict.sentence


def test_the_cache_raises_before_its_fix_and_passes_after(report: Report) -> None:
    before = verdict_of(report, f"cached/sglang@0.5.10.post1-u2-{CACHED}")
    assert before.outcome == Outcome.ERROR
    assert "has no attribute 'attention'" in before.sentence
    for release in ("0.5.12.post1", "0.5.23"):
        verdict = verdict_of(report, f"cached/sglang@{release}-u2-{CACHED}")
        assert verdict.outcome == Outcome.PASS, verdict.sentence


@pytest.mark.parametrize("row", ["guided/sglang@0.5.23-u2-auto", "guided/sglang@0.5.23-u3-auto"])
def test_guidance_with_captions_in_two_buckets_passes_in_the_newest(report: Report, row: str) -> None:
    assert verdict_of(report, row).outcome == Outcome.PASS


@pytest.mark.parametrize("size", SIZES)
def test_xfuser_is_exact_where_its_ranks_divide_the_sequence_and_attends_to_zeros_elsewhere(
    report: Report, size: str
) -> None:
    assert verdict_of(report, f"{size}/xfuser@0.7.0-u2").outcome == Outcome.PASS
    assert verdict_of(report, f"{size}/xfuser@0.7.0-u3").outcome == Outcome.FAIL


@pytest.mark.parametrize("case", ["guided", "batch"])
def test_xfuser_drops_masks_on_one_device_already(report: Report, case: str) -> None:
    verdict = verdict_of(report, f"{case}/xfuser@0.7.0-u2")
    assert (verdict.outcome, verdict.cause) == (Outcome.FAIL, "mask")
    assert any(judgement.relation == Relation.CONTROL and judgement.ok is False for judgement in verdict.judgements)
