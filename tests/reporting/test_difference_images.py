"""Difference pictures: what is amplified, what is said instead, and where the borders lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from harness.planning.cut import cut
from harness.reporting import difference_images
from harness.reporting.difference_images import Differences, absolute_difference, amplify, colour, load_picture
from harness.reporting.difference_index import DifferenceIndex
from harness.types import PIXELS_PER_TOKEN, ShardPlan, Size


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Any]:
    """Two pictures of 96x80 that differ by 3 in one pixel."""
    picture = np.full((80, 96, 3), 100, np.uint8)
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(picture).save(first)
    picture[70, 90, 1] = 97
    Image.fromarray(picture).save(second)
    return first, second, Differences(tmp_path)


def brightness(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), float)


def test_amplified_until_the_largest_is_brightest(pair: tuple[Path, Path, Any], tmp_path: Path) -> None:
    first, second, differences = pair
    found = differences.draw("d", first, second, None)
    assert (found.largest, found.factor) == (3, 85.0)
    assert "85" in found.words
    assert "3 of 255" in found.words
    shades = brightness(tmp_path / found.file)
    scale = found.size_px[0] // 96
    assert shades.shape == (80 * scale, 96 * scale)
    assert shades[70 * scale + scale // 2, 90 * scale + scale // 2] > 180
    assert shades[20 * scale, 20 * scale] < 40


def test_equal_missing_and_resized_get_words_and_no_file(pair: tuple[Path, Path, Any], tmp_path: Path) -> None:
    first, _, differences = pair
    small, broken = tmp_path / "small.png", tmp_path / "broken.png"
    Image.new("RGB", (80, 80)).save(small)
    broken.write_bytes(b"no picture")
    said = {other: differences.draw(other.name, first, other, None) for other in (first, small, broken)}
    assert said[first].words == "equal to the last bit"
    assert said[small].words == "sizes differ: 96x80 and 80x80"
    assert said[broken].words == "no picture to compare"
    assert not any(found.file for found in said.values())
    assert not (tmp_path / "diffs").exists()


@pytest.mark.parametrize(("axis", "ranks"), [("h", 2), ("w", 2), ("w", 4)])
def test_borders_lie_on_the_first_pixels_of_each_shard(
    pair: tuple[Path, Path, Any], tmp_path: Path, axis: Literal["h", "w"], ranks: int
) -> None:
    first, second, differences = pair
    plan = cut(Size(96, 80), ranks, axis)
    assert len(set(plan.shard_tokens)) == (1 if (axis, ranks) == ("w", 2) else 2)
    plain = brightness(tmp_path / differences.draw("d", first, second, None).file)
    drawn = brightness(tmp_path / differences.draw("d", first, second, plan).file)
    dim = 1 if axis == "h" else 0
    # dashes reach the far end, where no label is; a line there is half white
    lines = drawn.take(range(drawn.shape[dim] - 60, drawn.shape[dim]), dim).mean(axis=dim)
    scale = len(lines) // (80 if axis == "h" else 96)
    bright = set(np.flatnonzero(lines > 60) // (PIXELS_PER_TOKEN * scale))
    assert bright - {70 // 16, 90 // 16} == set(plan.origins[1:]) - {70 // 16, 90 // 16}
    for origin in plan.origins[1:]:
        start = origin * PIXELS_PER_TOKEN * scale
        assert lines[start] > 60
        assert lines[start - 4] < 40
        assert lines[start + 4] < 40
    assert not np.array_equal(plain, drawn)


def test_every_rank_is_named_at_its_corner(pair: tuple[Path, Path, Any], tmp_path: Path) -> None:
    first, second, differences = pair
    plan = cut(Size(96, 80), 2, "h")
    drawn = brightness(tmp_path / differences.draw("d", first, second, plan).file)
    scale = drawn.shape[0] // 80
    for origin in plan.origins:
        top = origin * PIXELS_PER_TOKEN * scale
        assert (drawn[top + 4 : top + 30, 2:60] > 150).sum() > 30, "no letters"


def test_equal_pairs_are_drawn_once_and_cuts_are_told_apart(pair: tuple[Path, Path, Any], tmp_path: Path) -> None:
    first, second, differences = pair
    plans: list[ShardPlan] = [cut(Size(96, 80), 2, axis) for axis in ("h", "w", "h")]
    files = [differences.draw("d", first, second, plan).file for plan in plans]
    assert files[0] == files[2] != files[1]
    assert len(list((tmp_path / "diffs").iterdir())) == 2


def test_what_was_drawn_earlier_of_the_same_pictures_stays(
    pair: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, differences = pair
    plan = cut(Size(96, 80), 2, "h")
    drawn = differences.draw("d", first, second, plan)
    assert len(set(drawn.drawn_from)) == 3
    read: list[Path] = []

    def load(path: Path) -> Any:
        read.append(path)
        return load_picture(path)

    monkeypatch.setattr(difference_images, "load_picture", load)

    def again() -> Any:
        return Differences(tmp_path, DifferenceIndex(differences.known)).draw("d", first, second, plan)

    assert again() == drawn
    assert not read
    (tmp_path / drawn.file).unlink()
    assert again() == drawn
    assert read == [first, second]
    assert (tmp_path / drawn.file).is_file()
    Image.new("RGB", (96, 80)).save(second)
    assert again().largest == 100
    second.unlink()
    assert again() == drawn  # it outlives its pictures


def test_difference_does_not_wrap_and_the_ramp_rises() -> None:
    low, high = np.full((1, 1, 3), 250, np.uint8), np.full((1, 1, 3), 5, np.uint8)
    assert absolute_difference(low, high)[0, 0] == absolute_difference(high, low)[0, 0] == 245
    ramp = np.asarray(colour(np.arange(256, dtype=np.uint8)[None]).convert("L"), int)[0]
    assert (np.diff(ramp) >= -1).all()
    assert ramp[0] < 20
    assert ramp[-1] > 230
    assert amplify(np.array([[0, 1, 2]], np.uint8), 2).tolist() == [[0, 128, 255]]
