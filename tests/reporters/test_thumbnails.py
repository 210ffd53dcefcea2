"""Thumbnails of the overview: made once, made anew where the picture changed, left out where there is none."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from harness.reporters._thumbnails import LONGEST_PX, thumbnail


def test_a_large_picture_has_one_and_a_small_one_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (LONGEST_PX, 20)).save(tmp_path / "a" / "small.png")
    source = tmp_path / "a" / "large.png"
    Image.new("RGB", (4 * LONGEST_PX, 2 * LONGEST_PX)).save(source)
    assert thumbnail(tmp_path, "a/small.png") == "a/small.png"
    assert thumbnail(tmp_path, "a/large.png") == "thumbs/a-large.jpg"
    made = tmp_path / "thumbs" / "a-large.jpg"
    with Image.open(made) as image:
        assert image.size == (LONGEST_PX, LONGEST_PX // 2)
    made.write_bytes(b"kept")
    thumbnail(tmp_path, "a/large.png")
    assert made.read_bytes() == b"kept"
    later = made.stat().st_mtime_ns + 10**9
    os.utime(source, ns=(later, later))
    thumbnail(tmp_path, "a/large.png")
    assert made.read_bytes() != b"kept"


def test_a_picture_that_cannot_be_read_has_none(tmp_path: Path) -> None:
    source = tmp_path / "large.png"
    Image.effect_noise((4 * LONGEST_PX, 2 * LONGEST_PX), 50).save(source)
    source.write_bytes(source.read_bytes()[:9000])
    assert thumbnail(tmp_path, "large.png") is None
    assert thumbnail(tmp_path, "nowhere.png") is None
