"""A rank that raises inside a collective ends its own row, names itself, and holds nobody up."""

from __future__ import annotations

import pytest

from harness.execution.pool import Pool
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import FailureKind, Outcome

TIMEOUT_S = 300
"""Far beyond what the test takes: a group that waited for the raising rank would be seen as a timeout."""

MATRIX = f"""
schema = 1
model = "nano"
steps = 2
golden = "off"
timeout_s = {TIMEOUT_S}

[[case]]
size = "144x144"
prompt = "a red ball"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
fault = "rank-raises"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "w"
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raises")
    (folder / "raises.toml").write_text(MATRIX)
    matrix, graph = steps.prepare(folder / "raises.toml")
    run_folder = RunFolder.create(folder / "reports", matrix, graph, "off")
    with Pool(run_folder.path / "logs") as pool:
        steps.record(run_folder, pool)
    return steps.conclude(run_folder)


def test_the_row_is_an_error_that_names_the_rank_and_shows_its_traceback(report):
    row = report.rows[0]
    failure = report.runs[row.runs["candidate"]].failure
    assert (row.verdict.outcome, row.verdict.cause) == (Outcome.ERROR, "crash")
    assert (failure.kind, failure.rank) == (FailureKind.RAISED, 1)
    assert "rank 1 raised RuntimeError: planted" in row.verdict.sentence
    assert "in all_to_all" in failure.detail or "_to_heads" in failure.detail
    assert report.exit_code == 1


def test_the_other_rank_is_not_waited_for_and_the_next_row_is_served(report):
    broken, sound = report.rows
    assert report.runs[broken.runs["candidate"]].wall_s < TIMEOUT_S / 10
    assert sound.verdict.outcome == Outcome.PASS
