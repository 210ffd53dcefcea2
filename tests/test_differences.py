"""The index of difference pictures: read as it was written, and no hindrance where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.differences import FOLDER, INDEX, Difference, DifferenceIndex


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
