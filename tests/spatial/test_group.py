"""Process groups from explicit lists of ranks, and the bytes they count."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("sequences", "ulysses", "ring", "complaint"),
    [
        ([[0, 1, 2, 3]], 2, 1, "expected 2 different ranks"),
        ([[1, 0], [2, 3]], 2, 1, "ascending order"),
        ([[0, 0], [2, 3]], 2, 1, "expected 2 different ranks"),
    ],
)
def test_wrong_lists_of_ranks_are_refused(four, sequences, ulysses, ring, complaint):
    assert all(complaint in message for message in four("build_error", sequences, ulysses, ring))


def test_a_rank_that_belongs_to_no_picture_is_told_so(three):
    messages = three("build_error", [[0, 2]], 2, 1)
    assert messages[0] == messages[2] == ""
    assert "rank 1 belongs to none" in messages[1]


def test_bytes_sent_are_those_that_leave_the_rank(four):
    lengths = [5, 1, 2, 7]
    # 8 heads of 5 float32 on 4 ranks: three quarters of each rank's tokens go to others
    assert four("bytes_of_exchange", lengths) == [length * 8 * 5 * 4 * 3 // 4 for length in lengths]
