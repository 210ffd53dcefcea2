"""Pictures that the pages show beside differences: their sizes, and copies of goldens."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from harness.reporting.difference_images import load_picture
from harness.reporting.difference_index import write_jpeg


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture from its header; ``None`` if it is missing or unreadable."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError):
        return None


def copy_golden(source: Path, to: Path) -> None:
    """Copy an approved picture; one for the eye alone takes a fifth of its bytes as JPEG. Damaged ones are left out."""
    if to.suffix == source.suffix:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to)
    elif (picture := load_picture(source)) is not None:
        write_jpeg(Image.fromarray(picture), to)
