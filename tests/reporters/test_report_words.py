"""The words and numbers that all report formats share."""

from __future__ import annotations

import pytest

from harness.reporters._words import number_text


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (None, "dB", "\N{EN DASH}"),
        (69.49, "dB", "69.5"),
        (-0.04, "dB", "0.0"),
        (-20.06, "dB", "-20.1"),
        (4.0, "of 255", "4"),
        (0.99942, "1", "0.9994"),
        (0.00001, "", "1.0e-05"),
    ],
)
def test_a_number_has_as_many_digits_as_tell_something(value: float | None, unit: str, expected: str) -> None:
    assert number_text(value, unit) == expected
