"""Rows whose ranks exchanged nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.judging.engaged import problem
from harness.types import Case, Row, Run, RunSpec, Size, Variant

CASE = Case("c", "m", Size(144, 144), ("x",))
LEAST = 2 * 81


@pytest.mark.parametrize(
    ("degree", "counters", "idle"),
    [
        (2, {"collective_bytes": LEAST - 1}, True),
        (2, {"collective_bytes": 0, "exchanged_bytes": 0}, True),
        (2, {"collective_bytes": LEAST}, False),
        (2, {"collective_bytes": 0, "exchanged_bytes": LEAST}, False),  # replayed graphs pass Python by
        (2, {}, False),  # nobody counts
        (1, {"collective_bytes": 0}, False),
    ],
)
def test_a_split_exchanges_at_least_a_value_for_each_token(
    degree: int, counters: Mapping[str, int], idle: bool
) -> None:
    row = Row(CASE, Variant("theirs", degree), runs={"candidate": "c"})
    run = Run(RunSpec(CASE, "theirs", "", "w", "s", ulysses=degree), "ok", counters=counters)
    said = problem(row, {"c": run})
    assert (said is not None) is idle
    if said:
        assert said.startswith("Nothing was split: the 2 ranks sent one another ")
