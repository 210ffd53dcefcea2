"""Attention over ranks against the same module on one device."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOLERANCE = 2e-6
"""float32 sums of some 60 terms of order one, in another order."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid=st.sampled_from([([[0, 1, 2, 3]], 2, 2), ([[0, 1, 2, 3]], 1, 4), ([[0, 2], [1, 3]], 2, 1)]),
    lengths=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    num_suffix=st.sampled_from([0, 4, 6]),
    masked=st.booleans(),
    exchange=st.sampled_from(["separate", "fused", "overlapped"]),
    seed=st.integers(0, 99),
)
def test_every_grid_meets_all_tokens_once(four, grid, lengths, num_suffix, masked, exchange, seed):
    sequences, ulysses, ring = grid
    lengths = lengths[: ulysses * ring]
    errors = four("attention_error", sequences, ulysses, ring, lengths, num_suffix, masked, exchange, seed)
    assert max(errors) < TOLERANCE


@pytest.mark.parametrize("lengths", [[3, 3, 3], [7, 1, 2], [1, 1, 9]])
def test_three_ranks_even_and_very_uneven(three, lengths):
    errors = three("attention_error", [[0, 1, 2]], 3, 1, lengths, 4, True, "separate", 0)
    assert max(errors) < TOLERANCE
