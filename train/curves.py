"""Loss over steps from the logs, as a small picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 420, 200, 30


def write(logs: Sequence[Path], picture: Path) -> None:
    """Draw one panel for each log: loss on a logarithmic scale, thin as logged and thick smoothed."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH * len(logs), HEIGHT), "white")
    for index, log in enumerate(logs):
        with log.open(newline="") as file:
            rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
        _panel(ImageDraw.Draw(image), index * WIDTH, log.stem, rows)
    image.quantize(16).save(picture, optimize=True)


def _panel(pen: Any, left: int, title: str, rows: list[tuple[int, float]]) -> None:
    losses = [loss for _, loss in rows]
    low, high = math.log10(min(losses)), math.log10(max(losses))

    def point(step: int, loss: float) -> tuple[float, float]:
        across = left + MARGIN + (WIDTH - MARGIN - 8) * step / rows[-1][0]
        return across, HEIGHT - 20 - (HEIGHT - 40) * (math.log10(loss) - low) / (high - low)

    smooth, mean = [], rows[0][1]
    for step, loss in rows:
        mean += 0.15 * (loss - mean)
        smooth.append(point(step, mean))
    pen.line([point(*row) for row in rows], fill="lightgrey")
    pen.line(smooth, fill="black", width=2)
    pen.text((left + MARGIN, 4), f"{title}: loss, {rows[-1][0]:,} steps", fill="black")
    for value in (low, high):
        pen.text((left + 2, point(0, 10**value)[1] - 6), f"{10**value:.2g}", fill="black")
