"""Thumbnails of the overview: small copies of large pictures, so that hundreds of rows load at once."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from harness.reporters._pictures import size_of
from harness.reporting.difference_index import write_jpeg

FOLDER = "thumbs"
LONGEST_PX = 320
"""Longest side of a thumbnail: twice what the overview shows, for dense screens. Smaller pictures are their own."""


def thumbnail(folder: Path, file: str) -> str | None:
    """Return the thumbnail of a picture of a report, made where it is missing or older than the picture.

    Parameters
    ----------
    folder
        Folder of the report.
    file
        The picture, relative to it.

    Returns
    -------
    str or None
        File relative to ``folder``; ``None`` where the picture is missing or unreadable.
    """
    source = folder / file
    size = size_of(source)
    if size is None:
        return None
    if max(size) <= LONGEST_PX:
        return file
    name = f"{source.parent.name}-{source.stem}.jpg"
    target = folder / FOLDER / name
    if not target.is_file() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
        try:
            with Image.open(source) as image:
                image.draft("RGB", (LONGEST_PX, LONGEST_PX))
                image.thumbnail((LONGEST_PX, LONGEST_PX))
                picture = image.convert("RGB")
        except (OSError, ValueError):
            return None
        write_jpeg(picture, target)
    return f"{FOLDER}/{name}"
