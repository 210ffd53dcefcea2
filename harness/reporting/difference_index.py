"""Index of difference pictures, kept beside them: they may outlive the pictures they were drawn from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from harness import codec, files
from harness.errors import FileError
from harness.types import Row

FOLDER = "diffs"
INDEX = "index.json"

REDUCED = "-reduced.jpg"
"""End of the name of a picture that is kept for the eye alone, in place of ``.png`` or ``.jpg``."""

JPEG_QUALITY = 85

SHOWN_IMAGES = 8
"""Of a batch, in a row of the report."""


def shown_pairs(row: Row) -> tuple[tuple[str, str, str], ...]:
    """List relation, reference role and candidate role of each difference that a report shows of a row."""
    split_reference = "replay" if "replay" in row.runs else "control"
    return (
        ("exchange", split_reference, "candidate"),
        ("layout", "baseline", "replay"),
        ("pair", "baseline", "candidate"),
    )


def name_of(row: Row, reference: str, candidate: str, index: int) -> str:
    """Return the name of the difference of two roles in one image, equal for equal pairs of pictures."""
    return f"{row.runs[reference]}-{row.runs[candidate]}-{index}"


def write_jpeg(picture: Image.Image, to: Path) -> None:
    """Write a JPEG, raising ``OSError`` on a full disk, which Pillow's own writer may ignore."""
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=JPEG_QUALITY)
    files.write_bytes(to, packed.getvalue())


@dataclass(frozen=True)
class Difference:
    """Difference of two pictures: a file, or a text instead."""

    words: str
    file: str | None = None
    factor: float = 1.0
    largest: int = 0
    size_px: tuple[int, int] = (0, 0)
    drawn_from: tuple[str, ...] = ()
    """How it was drawn and stamps of the two pictures, by which it is known whether it is still theirs."""


NOTHING_TO_COMPARE = Difference("no picture to compare")


@dataclass(frozen=True)
class DifferenceIndex:
    """Differences of a report by the stem of their file, ``REFERENCE-CANDIDATE-IMAGE[-CUT]``."""

    differences: Mapping[str, Difference] = field(default_factory=dict)

    @classmethod
    def read(cls, report: Path) -> DifferenceIndex:
        """Read the index of a report's folder; empty where it is missing or unreadable."""
        try:
            return codec.read_json(report / FOLDER / INDEX, cls)
        except FileError:
            return cls()

    def write(self, report: Path) -> None:
        """Write the index beside the pictures."""
        codec.write_json(report / FOLDER / INDEX, self)
