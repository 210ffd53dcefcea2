"""Difference pictures: amplified, coloured, with the borders of the shards drawn in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from harness.reporting.difference_index import FOLDER, NOTHING_TO_COMPARE, Difference, DifferenceIndex, write_jpeg
from harness.types import PIXELS_PER_TOKEN, ShardPlan

Picture = npt.NDArray[np.uint8]

# dark to bright: position on 0..255, red, green, blue
RAMP = ((0, 7, 8, 16), (48, 45, 20, 95), (112, 150, 35, 105), (176, 235, 100, 55), (255, 255, 245, 185))
KEPT_PICTURES = 6
DRAWN_AS = "1"
"""To be changed with how differences are drawn: those drawn otherwise are then drawn anew."""
READABLE_PX = 480
"""Differences of smaller pictures are enlarged, a whole number of times, or no label could be read."""


class Differences:
    """Draws difference pictures into ``folder/diffs``, each once, and keeps an index of them.

    Parameters
    ----------
    folder
        Folder of the report.
    known
        Earlier differences, reused where the pictures are unchanged or no longer there.
    """

    def __init__(self, folder: Path, known: DifferenceIndex | None = None) -> None:
        self.folder = folder
        self._known = known or DifferenceIndex()
        self._done: dict[str, Difference] = {}
        self._load = _Recent().load

    def draw(self, name: str, reference: Path, candidate: Path, plan: ShardPlan | None) -> Difference:
        """Draw ``candidate - reference``.

        Parameters
        ----------
        name : str
            Start of the file name, equal for equal pairs of pictures; the plan's borders are added to it.
        reference, candidate : Path
            Picture files; either may be missing.
        plan : ShardPlan or None
            Cut whose borders are drawn in.

        Returns
        -------
        Difference
            With a file only where the pictures differ and can be compared.
        """
        cut = f"-{plan.axis}{'_'.join(map(str, plan.shard_tokens))}" if plan else ""
        stem = f"{name}{cut}"
        if stem not in self._done:
            self._done[stem] = self._find(stem, reference, candidate, plan)
        return self._done[stem]

    @property
    def known(self) -> dict[str, Difference]:
        """Differences whose two pictures were read, now or earlier."""
        return {stem: found for stem, found in self._done.items() if found != NOTHING_TO_COMPARE}

    def _find(self, stem: str, reference: Path, candidate: Path, plan: ShardPlan | None) -> Difference:
        """Return the earlier difference of the same pictures, or draw it."""
        stamps = (DRAWN_AS, _stamp(reference), _stamp(candidate))
        earlier = self._known.differences.get(stem)
        if not all(stamps):
            return earlier or NOTHING_TO_COMPARE
        if earlier and earlier.drawn_from == stamps and (not earlier.file or (self.folder / earlier.file).is_file()):
            return earlier
        first, second = self._load(reference), self._load(candidate)
        if first is None or second is None:
            return NOTHING_TO_COMPARE
        return replace(self._draw(stem, first, second, plan), drawn_from=stamps)

    def _draw(self, stem: str, first: Picture, second: Picture, plan: ShardPlan | None) -> Difference:
        if first.shape != second.shape:
            sizes = (f"{p.shape[1]}x{p.shape[0]}" for p in (first, second))
            return Difference(f"sizes differ: {' and '.join(sizes)}")
        difference = absolute_difference(first, second)
        largest = int(difference.max())
        if largest == 0:
            return Difference("equal to the last bit")
        picture = colour(amplify(difference, largest))
        scale = max(1, READABLE_PX // max(picture.size))
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        if plan is not None:
            draw_borders(picture, plan, scale)
        file = f"{FOLDER}/{stem}.jpg"
        write_jpeg(picture, self.folder / file)
        factor = 255 / largest
        words = f"amplified {factor:.3g} times; largest difference {largest} of 255"
        return Difference(words, file, factor, largest, picture.size)


class _Recent:
    """Cache of the last few pictures read, as neighbouring rows compare the same ones."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[Path, Picture | None] = OrderedDict()

    def load(self, path: Path) -> Picture | None:
        """Return a picture from the cache, or read it."""
        if path not in self._loaded:
            self._loaded[path] = load_picture(path)
            if len(self._loaded) > KEPT_PICTURES:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(path)
        return self._loaded[path]


def _stamp(path: Path) -> str:
    """Return size and modification time of a file; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def load_picture(path: Path) -> Picture | None:
    """Read a picture as uint8 ``H,W,3``; ``None`` if it is missing or unreadable."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        return None


def absolute_difference(first: Picture, second: Picture) -> Picture:
    """Return the largest absolute difference over the channels, uint8 ``H,W``."""
    difference: Picture = np.maximum(first, second) - np.minimum(first, second)
    return np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])


def amplify(difference: Picture, largest: int) -> Picture:
    """Scale to 0..255, so that the largest difference becomes 255."""
    table = np.clip(np.round(np.arange(256) * (255 / largest)), 0, 255).astype(np.uint8)
    stretched: Picture = table[difference]
    return stretched


def colour(values: Picture) -> Image.Image:
    """Map ``H,W`` through a colour map from dark to bright."""
    positions, *channels = zip(*RAMP, strict=True)
    table = [np.interp(np.arange(256), positions, channel) for channel in channels]
    image = Image.fromarray(values)
    image.putpalette(np.stack(table, axis=1).round().astype(np.uint8).tobytes())
    return image.convert("RGB")


def draw_borders(picture: Image.Image, plan: ShardPlan, scale: int = 1) -> None:
    """Draw a dashed line where each shard but the first begins, and name the rank of each.

    Dashes alternate between white and black, so that they show on any background. A line covers the
    shard's first row or column of pixels: token ``origin`` times 16, times the picture's enlargement.
    """
    pen = ImageDraw.Draw(picture)
    longest = max(picture.size)
    thickness, dash = max(1, round(longest / 480)), max(4, longest // 80)
    for rank, origin in enumerate(plan.origins):
        start = origin * PIXELS_PER_TOKEN * scale
        if rank:
            _dashed_line(pen, picture.size, plan.axis, start - thickness // 2, thickness, dash)
        _label(pen, f"rank {rank}", (0, start) if plan.axis == "h" else (start, 0), longest)


def _dashed_line(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], axis: str, start: int, thickness: int, dash: int
) -> None:
    length = size[0] if axis == "h" else size[1]
    for number, along in enumerate(range(0, length, dash)):
        shade = "white" if number % 2 == 0 else "black"
        near, far = (along, start), (min(along + dash, length) - 1, start + thickness - 1)
        pen.rectangle((near, far) if axis == "h" else (near[::-1], far[::-1]), fill=shade)


def _label(pen: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], longest: int) -> None:
    font: Any = ImageFont.load_default(size=max(9, longest / 36))
    gap = max(2, longest // 240)
    at = (corner[0] + 2 * gap, corner[1] + 2 * gap)
    left, top, right, bottom = pen.textbbox(at, text, font=font)
    pen.rectangle((left - gap, top - gap, right + gap, bottom + gap), fill="black")
    pen.text(at, text, fill="white", font=font)
