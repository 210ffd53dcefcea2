"""Trend pages: a page for each matrix with its nights, what changed, and a line of small curves for each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.history import words
from harness.history.changes import EXACT, Changes, table
from harness.history.night import Night

SHOWN_NIGHTS = 60
"""Nights on a page; older ones stay in ``history.jsonl``."""

WIDTH_PX, HEIGHT_PX, EDGE_PX = 150, 30, 4

CURVES: Mapping[str, str] = {
    "exchange_db": "exchange",
    "pair_db": "pair",
    "pair_image_db": "pair, pictures",
    "step_s": "s a step",
    "peak_memory_bytes": "peak memory",
    "wall_s": "wall time",
}
"""Columns of the table of nights that are drawn, and their heads."""


@dataclass(frozen=True)
class Dot:
    """One night of a curve."""

    x: float
    y: float
    words: str
    exact: bool


@dataclass(frozen=True)
class Curve:
    """A row's figure over the nights. It is broken wherever the surroundings changed."""

    last: str
    lines: tuple[str, ...]
    """Points of each stretch, as SVG has them."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Line:
    """A row of a matrix: its outcomes and its curves."""

    name: str
    outcomes: tuple[str, ...]
    curves: tuple[Curve | None, ...]


@dataclass(frozen=True)
class Trend:
    """A matrix over its nights."""

    matrix: str
    changes: Changes
    nights: tuple[Night, ...]
    lines: tuple[Line, ...]
    breaks: tuple[float, ...]
    """Where on a curve the surroundings changed."""
    surroundings: tuple[int, ...]
    """Number of each night's surroundings, from 1."""

    @property
    def page(self) -> str:
        """Name of its file."""
        return f"matrix-{self.matrix}.html"


def trend(nights: Sequence[Night], changes: Changes) -> Trend:
    """Lay out the last nights of one matrix; rows of the last night in its order, those that fail first."""
    shown = nights[-SHOWN_NIGHTS:]
    frame = table(shown)
    kinds = list(dict.fromkeys(night.surroundings for night in shown))
    numbers = [kinds.index(night.surroundings) for night in shown]
    failing = {found.row for found in changes.failing}
    names = sorted(shown[-1].rows, key=lambda name: name not in failing)
    return Trend(
        matrix=shown[-1].matrix,
        changes=changes,
        nights=tuple(shown),
        lines=tuple(_line(name, frame[frame.row == name], shown, numbers) for name in names),
        breaks=tuple(
            (_x(n, len(shown)) + _x(n - 1, len(shown))) / 2
            for n in range(1, len(shown))
            if numbers[n] != numbers[n - 1]
        ),
        surroundings=tuple(number + 1 for number in numbers),
    )


def write(trends: Sequence[Trend], folder: Path) -> Path:
    """Write a page for each matrix and ``index.html``, and return the latter."""
    templates = Environment(
        loader=PackageLoader("harness.history"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = {"trends": trends, "words": words, "width": WIDTH_PX, "height": HEIGHT_PX, "heads": list(CURVES.values())}
    folder.mkdir(parents=True, exist_ok=True)
    for one in trends:
        text = templates.get_template("matrix.html.j2").render(**shared, trend=one)
        (folder / one.page).write_text(text, encoding="utf-8")
    index = folder / "index.html"
    index.write_text(templates.get_template("index.html.j2").render(**shared), encoding="utf-8")
    return index


def _line(name: str, rows: pd.DataFrame, nights: Sequence[Night], numbers: Sequence[int]) -> Line:
    by_night = rows.set_index("night").reindex(range(len(nights)))
    outcomes = tuple(value if isinstance(value, str) else "none" for value in by_night.outcome)
    return Line(name, outcomes, tuple(_curve(what, list(by_night[what]), nights, numbers) for what in CURVES))


def _curve(what: str, values: Sequence[float], nights: Sequence[Night], numbers: Sequence[int]) -> Curve | None:
    """Draw values over nights; ``None`` where there is none. Equal sides stand at the upper edge."""
    known = [number for number, value in enumerate(values) if not math.isnan(value)]
    if not known:
        return None
    finite = [values[number] for number in known if values[number] != EXACT]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    dots = {}
    for number in known:
        value = values[number]
        share = 1.0 if value == EXACT else (value - low) / (high - low) if high > low else 0.5
        y = round(HEIGHT_PX - EDGE_PX - share * (HEIGHT_PX - 2 * EDGE_PX), 1)
        said = f"{nights[number].started_at[:16]} {words.value(what, value)}"
        dots[number] = Dot(_x(number, len(nights)), y, said, value == EXACT)
    stretches: dict[int, list[Dot]] = {}
    stretch = 0
    for before, number in zip([known[0], *known], known, strict=False):
        stretch += numbers[before] != numbers[number]
        stretches.setdefault(stretch, []).append(dots[number])
    lines = tuple(" ".join(f"{dot.x},{dot.y}" for dot in points) for points in stretches.values())
    last = words.value(what, values[-1]) if not math.isnan(values[-1]) else words.NOTHING
    return Curve(last, lines, tuple(dots.values()))


def _x(number: int, count: int) -> float:
    return round(EDGE_PX + number * (WIDTH_PX - 2 * EDGE_PX) / max(count - 1, 1), 1)
