"""Recorded steps against eager ones, on buffers that requests share."""

from __future__ import annotations

import pytest

from harness.spatial.steps import MAX_BYTES

GRIDS = [
    pytest.param("four", [[0, 1, 2, 3]], 2, 2, "separate", id="2x2"),
    pytest.param("four", [[0, 2], [1, 3]], 2, 1, "overlapped", id="two-pictures-on-ranks-0-2-and-1-3"),
    pytest.param("three", [[0, 1, 2]], 3, 1, "fused", id="ulysses-3"),
    pytest.param("three", [[0, 1, 2]], 1, 3, "separate", id="ring-3"),
]
FIRST, AGAIN = ({"graphs_recorded": 1, "graph_steps": 2}, {"graph_steps": 3})
"""What a request of three steps counts: the first of a shape computes one step eagerly and records the second."""

WHOLE = [[0, 1, 2]]


def counted(counters):
    return {name: number for name, number in counters.items() if name != "graph_bytes"}


@pytest.mark.parametrize(("world", "sequences", "ulysses", "ring", "exchange"), GRIDS)
def test_every_step_of_every_request_is_eagers_to_the_last_bit(request, world, sequences, ulysses, ring, exchange):
    requests = [
        ("112x144", "h", "exact", [5]),
        ("112x144", "h", "exact", [20]),  # another caption, in the same bucket
        ("112x144", "h", "aligned", [5, 40]),
        ("112x144", "h", "aligned", [40, 5]),  # another mask
        ("144x112", "w", "aligned", [40, 5]),  # as many tokens on another grid
        ("112x144", "h", "exact", [33]),  # another bucket
        ("112x144", "h", "exact", [31]),  # the first shape again
    ]
    for served in request.getfixturevalue(world)("recorded_requests", sequences, ulysses, ring, exchange, requests):
        assert [equal for equal, _, _ in served] == [True] * len(requests)
        assert [counted(counters) for _, counters, _ in served] == [FIRST, AGAIN, FIRST, AGAIN, FIRST, FIRST, AGAIN]
        assert all(counters["graph_bytes"] > 0 for _, counters, _ in served)
        assert served[-1][2] == 4


def test_ranks_that_hold_unequal_parts_drop_the_same_recordings(three):
    requests = [("80x112", axis, "exact", [5]) for axis in ("h", "w", "h", "h", "w")]
    largest = max(served[0][1]["graph_bytes"] for served in three("recorded_requests", WHOLE, 3, 1, "fused", requests))
    for room, kept in ((largest, 1), (2 * largest, 2)):
        for served in three("recorded_requests", WHOLE, 3, 1, "fused", requests, room):
            again = [counted(counters) == AGAIN for _, counters, _ in served]
            assert again == ([False, False, False, True, False] if kept == 1 else [False, False, True, True, True])
            assert [equal for equal, _, _ in served] == [True] * len(requests)
            assert max(number for _, _, number in served) == kept


def test_without_memory_on_one_rank_all_go_on_eagerly_and_say_so(three):
    requests = [("112x144", "h", "exact", [5])] * 2
    for served in three("recorded_requests", WHOLE, 3, 1, "fused", requests, MAX_BYTES, [1]):
        assert [equal for equal, _, _ in served] == [True, True]
        assert [counters["graphs_out_of_memory"] for _, counters, _ in served] == [1, 1]
        assert all(counters["graph_steps"] == counters["graph_bytes"] == 0 for _, counters, _ in served)
        assert [kept for _, _, kept in served] == [0, 0]
