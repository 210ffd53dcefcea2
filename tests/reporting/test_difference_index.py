"""The index of difference pictures: read as it was written, and no hindrance where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from harness.reporting.difference_index import FOLDER, INDEX, Difference, DifferenceIndex, write_jpeg
from tests.disk import little_room


def test_a_picture_that_a_full_disk_would_cut_is_an_error(tmp_path: Path) -> None:
    with little_room(), pytest.raises(OSError, match="File too large"):
        write_jpeg(Image.new("RGB", (64, 64)), tmp_path / "a.jpg")
    assert not (tmp_path / "a.jpg").exists()


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = DifferenceIndex({"a-b-0": Difference("amplified", "diffs/a-b-0.jpg", 85.0, 3, (640, 480))})
    written.write(tmp_path)
    assert DifferenceIndex.read(tmp_path) == written


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"differences": {"a-b-0": {}}}'])
def test_pictures_are_drawn_anew_where_no_index_can_be_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / INDEX).write_text(content)
    assert DifferenceIndex.read(tmp_path) == DifferenceIndex()
