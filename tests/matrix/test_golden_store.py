"""Names in a golden store."""

from __future__ import annotations

import pytest

from harness.matrix.golden_store import slug


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nano", "nano"),
        ("Tongyi-MAI/Z-Image-Turbo", "tongyi-mai--z-image-turbo"),
        ("NVIDIA H200", "nvidia-h200"),
        ("a: b\\c\n<d>", "a-b-c-d"),
        ("..", "model"),
        ("../../etc", "etc"),
        ("", "model"),
        ("\U0001f98a", "model"),
    ],
)
def test_slugs_are_safe_in_a_path(text: str, name: str) -> None:
    assert slug(text) == name
