"""Trend pages: one page per matrix with its runs, the changes, and a line of sparklines per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.files import write_text
from harness.history import words
from harness.history.changes import EXACT, Changes, table
from harness.history.entry import Entry

SHOWN_ENTRIES = 60
"""Runs on a page; older ones stay in ``history.jsonl``."""

WIDTH_PX, HEIGHT_PX, EDGE_PX = 150, 30, 4

CURVES: Mapping[str, str] = {
    "exchange_db": "exchange",
    "pair_db": "pair",
    "pair_image_db": "pair, pictures",
    "step_s": "s a step",
    "peak_memory_bytes": "peak memory",
    "wall_s": "wall time",
}
"""Columns drawn as curves, and their headings."""


@dataclass(frozen=True)
class Dot:
    """One run on a curve."""

    x: float
    y: float
    words: str
    exact: bool


@dataclass(frozen=True)
class Curve:
    """A row's figure over runs, interrupted wherever the environment changed."""

    last: str
    lines: tuple[str, ...]
    """SVG points of each uninterrupted part."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Line:
    """A row of a matrix: its outcomes and its curves."""

    name: str
    outcomes: tuple[str, ...]
    curves: tuple[Curve | None, ...]


@dataclass(frozen=True)
class Trend:
    """A matrix over its runs."""

    matrix: str
    changes: Changes
    entries: tuple[Entry, ...]
    lines: tuple[Line, ...]
    breaks: tuple[float, ...]
    """Positions on a curve at which the environment changed."""
    environment: tuple[int, ...]
    """Number of each run's environment, from 1."""

    @property
    def page(self) -> str:
        """Name of its file."""
        return f"matrix-{self.matrix}.html"


def trend(entries: Sequence[Entry], changes: Changes) -> Trend:
    """Lay out the last runs of one matrix: rows in the last run's order, failing ones first."""
    shown = entries[-SHOWN_ENTRIES:]
    frame = table(shown)
    kinds = list(dict.fromkeys(entry.comparable_environment for entry in shown))
    numbers = [kinds.index(entry.comparable_environment) for entry in shown]
    failing = {found.row for found in changes.failing}
    names = sorted(shown[-1].rows, key=lambda name: name not in failing)
    return Trend(
        matrix=shown[-1].matrix,
        changes=changes,
        entries=tuple(shown),
        lines=tuple(_line(name, frame[frame.row == name], shown, numbers) for name in names),
        breaks=tuple(
            (_x(n, len(shown)) + _x(n - 1, len(shown))) / 2
            for n in range(1, len(shown))
            if numbers[n] != numbers[n - 1]
        ),
        environment=tuple(number + 1 for number in numbers),
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
    for one in trends:
        text = templates.get_template("matrix.html.j2").render(**shared, trend=one)
        write_text(folder / one.page, text)
    return write_text(folder / "index.html", templates.get_template("index.html.j2").render(**shared))


def _line(name: str, rows: pd.DataFrame, entries: Sequence[Entry], numbers: Sequence[int]) -> Line:
    by_number = rows.set_index("entry").reindex(range(len(entries)))
    outcomes = tuple(value if isinstance(value, str) else "none" for value in by_number.outcome)
    return Line(name, outcomes, tuple(_curve(what, list(by_number[what]), entries, numbers) for what in CURVES))


def _curve(what: str, values: Sequence[float], entries: Sequence[Entry], numbers: Sequence[int]) -> Curve | None:
    """Draw values over runs; ``None`` where there is none. Exact values lie at the upper edge."""
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
        said = f"{entries[number].started_at[:16]} {words.value(what, value)}"
        dots[number] = Dot(_x(number, len(entries)), y, said, value == EXACT)
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
