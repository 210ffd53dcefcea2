"""A row step by step: how its error grows, and what a cache decided on each rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.reporters._words import judged, run_of
from harness.types import Relation, Report, Row

SERIES = (Relation.EXCHANGE, Relation.LAYOUT, Relation.PAIR)

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 30
EXACT_BAND = 24
"""Height kept above the scale for steps after which both sides are equal."""
TICKS_DB = (5, 10, 20, 25, 50)


@dataclass(frozen=True)
class Point:
    """One step of one series, in the coordinates of the drawing."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Series:
    """Latents PSNR of one relation after each step."""

    relation: str
    values: tuple[str, ...]
    points: tuple[Point, ...] = ()

    @property
    def line(self) -> str:
        """Corners of the line."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class Tick:
    """A place on an axis with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class StepLine:
    """Decisions of one process: for each step whether it was served, and whether its reference did otherwise."""

    name: str
    decisions: tuple[tuple[bool, bool], ...]

    @property
    def served(self) -> int:
        """Steps served from the cache."""
        return sum(served for served, _ in self.decisions)

    @property
    def words(self) -> str:
        """Decisions for those who cannot see the strip."""
        return ", ".join("served" if served else "computed" for served, _ in self.decisions)


@dataclass(frozen=True)
class StepView:
    """Everything that is told of a row's steps."""

    numbers: tuple[int, ...]
    sentences: tuple[str, ...]
    series: tuple[Series, ...]
    cache: tuple[StepLine, ...]
    ticks_y: tuple[Tick, ...] = ()
    """Empty where there is no curve to draw: a single step, or none that differs."""
    ticks_x: tuple[Tick, ...] = ()
    floor: Tick | None = None
    """Bound that exchange is held to."""


def step_view(report: Report, row: Row) -> StepView | None:
    """Put a row's steps together; ``None`` where neither latents after steps nor decisions were recorded."""
    values = _values(row)
    cache = _cache_lines(report, row)
    count = max([*map(len, values.values()), *(len(line.decisions) for line in cache)], default=0)
    if not count:
        return None
    finite = [value for series in values.values() for value in series if value is not None]
    numbers = tuple(range(1, count + 1))
    sentences = tuple(_sentences(row, values))
    if not finite or count == 1:
        series = tuple(Series(relation.value, _texts(found)) for relation, found in values.items())
        return StepView(numbers, sentences, series, cache)
    return _drawn(row, values, finite, StepView(numbers, sentences, (), cache))


def grows_most(values: Sequence[float | None]) -> int | None:
    """Find the step, from 1, that adds most error; ``None`` where no step adds any.

    The error is the one that the decibels speak of, root mean square over the span: from 60 to 50 dB it
    grows by far less than from 40 to 36 dB.

    >>> grows_most([None, 60.0, 50.0, 40.0, 36.0, 36.5])
    4
    """
    errors = [0.0, *(0.0 if value is None else 10 ** (-value / 20) for value in values)]
    growth = [after - before for before, after in pairwise(errors)]
    largest = max(growth, default=0.0)
    return growth.index(largest) + 1 if largest > 0 else None


def _values(row: Row) -> dict[Relation, tuple[float | None, ...]]:
    """PSNR after each step by relation; both sides being one run, it is equal throughout."""
    comparisons = {relation: found for relation in SERIES if (found := row.comparison(relation))}
    count = max((len(comparison.steps_db) for comparison in comparisons.values()), default=0)
    equal: tuple[float | None, ...] = (None,) * count
    values = {relation: equal if found.same_run else found.steps_db for relation, found in comparisons.items()}
    return {relation: found for relation, found in values.items() if found}


def _sentences(row: Row, values: dict[Relation, tuple[float | None, ...]]) -> list[str]:
    """Say where the pair's error grows most, and exchange's too where that fails."""
    told = [Relation.EXCHANGE] if judged(row, Relation.EXCHANGE)[0] is False else []
    return [_growth(relation, values[relation]) for relation in (*told, Relation.PAIR) if relation in values]


def _growth(relation: Relation, values: tuple[float | None, ...]) -> str:
    step = grows_most(values)
    if step is None:
        return f"{relation.value.capitalize()}: equal to the last bit after every step."
    before = None if step == 1 else values[step - 2]
    start = "equal" if before is None else f"{before:.1f} dB"
    return (
        f"{relation.value.capitalize()}: the error grows most at step {step} of {len(values)}, from {start} "
        f"to {values[step - 1]:.1f} dB."
    )


def _texts(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple("exact" if value is None else f"{value:.1f}" for value in values)


@dataclass(frozen=True)
class _Scale:
    """Coordinates of steps and decibels in the chart; equality lies in a band above the scale."""

    steps: int
    low: int
    high: int
    tick: int
    some_exact: bool

    @classmethod
    def around(cls, steps: int, shown: Sequence[float], some_exact: bool) -> _Scale:
        """Choose round limits around all values."""
        tick = next((size for size in TICKS_DB if (max(shown) - min(shown)) / size <= 4), 100)
        low, high = math.floor(min(shown) / tick) * tick, math.ceil(max(shown) / tick) * tick
        return cls(steps, low, max(high, low + tick), tick, some_exact)

    def across(self, step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - 0.5) / self.steps

    def up(self, value: float | None) -> float:
        if value is None:
            return TOP
        top = TOP + EXACT_BAND * self.some_exact
        return top + (HEIGHT - BOTTOM - top) * (self.high - value) / (self.high - self.low)

    def ticks_y(self) -> tuple[Tick, ...]:
        ticks = [Tick(self.up(value), str(value)) for value in range(self.low, self.high + 1, self.tick)]
        return (*ticks, *([Tick(TOP, "exact")] if self.some_exact else []))

    def ticks_x(self) -> tuple[Tick, ...]:
        every = math.ceil(self.steps / 12)
        return tuple(Tick(self.across(step), str(step)) for step in range(1, self.steps + 1, every))


def _drawn(
    row: Row, values: dict[Relation, tuple[float | None, ...]], finite: Sequence[float], view: StepView
) -> StepView:
    """Lay out the drawing."""
    floor = next((j.bound.value for j in judged(row, Relation.EXCHANGE)[1] if j.bound and j.bound.unit == "dB"), None)
    some_exact = any(None in series for series in values.values())
    scale = _Scale.around(len(view.numbers), finite if floor is None else [*finite, floor], some_exact)
    return replace(
        view,
        series=tuple(_series(relation.value, found, scale) for relation, found in values.items()),
        ticks_y=scale.ticks_y(),
        ticks_x=scale.ticks_x(),
        floor=None if floor is None else Tick(scale.up(floor), f"floor {floor:g}"),
    )


def _series(relation: str, values: Sequence[float | None], scale: _Scale) -> Series:
    texts = _texts(values)
    points = (
        Point(scale.across(step), scale.up(value), f"{relation}, step {step}: {text}{'' if value is None else ' dB'}")
        for step, (value, text) in enumerate(zip(values, texts, strict=True), 1)
    )
    return Series(relation, texts, tuple(points))


def _cache_lines(report: Report, row: Row) -> tuple[StepLine, ...]:
    """Decisions of the baseline, of the replay and of every rank; the replay's are what is asked for."""
    if row.variant.cache == "none":
        return ()
    runs = {role: run_of(report, row, role) for role in ("baseline", "replay", "candidate")}
    if row.runs.get("replay") == row.runs.get("baseline"):
        runs["replay"] = None
    reference = runs["replay"] or runs["baseline"]
    expected = reference.cache_decisions[0] if reference and reference.cache_decisions else ()
    lines = []
    for role, run in runs.items():
        for rank, decisions in enumerate(run.cache_decisions if run else ()):
            name = f"rank {rank}" if role == "candidate" else role
            wanted = expected if role == "candidate" else decisions
            marks = [
                (served, place >= len(wanted) or served != wanted[place]) for place, served in enumerate(decisions)
            ]
            lines.append(StepLine(name, tuple(marks)))
    return tuple(lines)
