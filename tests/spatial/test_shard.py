"""Cut and gather on four real processes, by one device's statement: what was cut comes back."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WHOLE = [[0, 1, 2, 3]]
INTERLEAVED = [[0, 2], [1, 3]]
"""Two pictures side by side, on ranks that are not consecutive."""

sides = st.integers(1, 9).map(lambda tokens: tokens * 16)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.sampled_from([WHOLE, INTERLEAVED]),
    width=sides,
    height=sides,
    axis=st.sampled_from(["h", "w"]),
    leading=st.sampled_from([[1, 4], [2, 4], [1, 4, 1], [2, 3, 1], [1, 3, 4, 1], [2, 3, 4, 1]]),
    contiguous=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gather_undoes_cut_for_4_5_and_6_dimensions(four, sequences, width, height, axis, leading, contiguous, seed):
    size = f"{width}x{height}"
    assert all(four("gathers_what_was_cut", sequences, size, axis, leading, contiguous, seed))


def test_three_ranks_with_shards_of_every_length(three):
    for tokens in range(3, 12):
        size = f"{tokens * 16}x32"
        assert all(three("gathers_what_was_cut", [[0, 1, 2]], size, "w", [1, 4], True, tokens)), size
