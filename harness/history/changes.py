"""What changed on the last night, and since when: arithmetic on a table of nights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from harness.history.night import FIGURES, Night
from harness.types import Outcome

FAILING = {outcome.value for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT, Outcome.NO_GOLDEN)}
JUDGED = FAILING | {Outcome.PASS.value}
"""A skip says nothing of a row, and neither does a row that was not reached."""

NIGHTS_TO_COMPARE_TIMES_WITH = 7
NIGHTS_BEFORE_TIMES_ARE_COMPARED = 3
"""Steps that take as long as launching their kernels scatter by half from one night to the next."""
EXACT = float("inf")
"""Equal to the last bit, where figures stand in a column of dB; nothing is farther up."""


@dataclass(frozen=True)
class Limits:
    """What counts as a change."""

    slower: float = 1.25
    """Seconds a step over the median of the nights before, in equal surroundings."""
    moved_db: float = 1.0
    """Between two nights in equal surroundings; becoming or ceasing to be exact always counts."""


@dataclass(frozen=True)
class Failing:
    """A row that fails on the last night."""

    row: str
    cause: str | None
    sentence: str
    since_run: str
    since: str
    num_nights: int
    """Judged nights in a row on which it failed, the last one included."""


@dataclass(frozen=True)
class Moved:
    """A figure that moved: a row's seconds a step, or one of :data:`harness.history.night.FIGURES`."""

    row: str
    what: str
    before: float
    now: float


@dataclass(frozen=True)
class Changes:
    """The last night beside those before it."""

    last: Night
    before: Night | None
    newly_failing: tuple[Failing, ...] = ()
    still_failing: tuple[Failing, ...] = ()
    mended: tuple[str, ...] = ()
    slower: tuple[Moved, ...] = ()
    figures: tuple[Moved, ...] = ()
    appeared: tuple[str, ...] = ()
    """Rows that no night before had."""
    gone: tuple[str, ...] = ()
    surroundings: tuple[str, ...] = ()
    """What else is different: device, driver, libraries, weights. Then figures and times are not compared."""
    others: tuple[str, ...] = field(default=())
    """Rows that are neither judged nor skipped."""

    @property
    def failing(self) -> tuple[Failing, ...]:
        """All rows that fail, those that are new to it first."""
        return (*self.newly_failing, *self.still_failing)


def table(nights: Sequence[Night]) -> pd.DataFrame:
    """One line per night and row, nights numbered in order; ``surroundings`` numbers different ones from 0."""
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(night.surroundings for night in nights))}
    found = [
        {
            "night": number,
            "surroundings": kinds[night.surroundings],
            "row": name,
            "outcome": row.outcome,
            "cause": row.cause,
            "sentence": row.sentence,
            **{what: _column(row.figures_db, what) for what in FIGURES},
            "step_s": row.step_s,
            "baseline_step_s": row.baseline_step_s,
            "peak_memory_bytes": row.peak_memory_bytes,
            "wall_s": row.wall_s,
        }
        for number, night in enumerate(nights)
        for name, row in night.rows.items()
    ]
    numbers = [*FIGURES, "step_s", "baseline_step_s", "peak_memory_bytes", "wall_s"]
    columns = ["night", "surroundings", "row", "outcome", "cause", "sentence", *numbers]
    return pd.DataFrame(found, columns=columns).astype(dict.fromkeys(numbers, "float64"))


def changes(nights: Sequence[Night], limits: Limits = Limits()) -> Changes:
    """Compare the last night of a matrix with those before it.

    Parameters
    ----------
    nights
        Nights of one matrix in order, at least one.
    limits
        What counts as a change.
    """
    last, before = nights[-1], nights[-2] if len(nights) > 1 else None
    frame = table(nights)
    number = len(nights) - 1
    failing = [_failing(nights, frame[frame.row == name]) for name in _names(frame, number, FAILING)]
    old = _last_outcomes(frame[frame.night < number])
    now = frame[frame.night == number].set_index("row")
    known = set(frame[frame.night < number].row)
    fresh = [found for found in failing if old.get(found.row) not in FAILING]
    return Changes(
        last,
        before,
        newly_failing=tuple(fresh),
        still_failing=tuple(found for found in failing if found not in fresh),
        mended=tuple(name for name in _names(frame, number, {Outcome.PASS.value}) if old.get(name) in FAILING),
        slower=tuple(_slower(frame, number, limits)),
        figures=tuple(_moved(frame, number, limits)),
        appeared=tuple(name for name in now.index if before and name not in known),
        gone=tuple(name for name in (before.rows if before else ()) if name not in last.rows),
        surroundings=tuple(_differences(before, last)) if before else (),
        others=tuple(now.index[now.outcome.isna()]),
    )


def _column(figures_db: Any, what: str) -> float:
    value = figures_db.get(what, np.nan)
    return EXACT if value is None else float(value)


def _names(frame: pd.DataFrame, number: int, outcomes: set[str]) -> list[str]:
    return list(frame[(frame.night == number) & frame.outcome.isin(outcomes)].row)


def _last_outcomes(frame: pd.DataFrame) -> dict[str, str]:
    """Outcome of each row on the last night on which it was judged."""
    judged = frame[frame.outcome.isin(JUDGED)]
    return dict(judged.groupby("row").outcome.last())


def _failing(nights: Sequence[Night], rows: pd.DataFrame) -> Failing:
    judged = rows[rows.outcome.isin(JUDGED)]
    passed = judged[~judged.outcome.isin(FAILING)]
    streak = judged[judged.night > (passed.night.max() if len(passed) else -1)]
    first, last = nights[streak.night.iloc[0]], streak.iloc[-1]
    cause = last.cause if isinstance(last.cause, str) else None
    return Failing(last.row, cause, last.sentence, first.run, first.started_at, len(streak))


def _earlier(frame: pd.DataFrame, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the last night, and those of earlier nights in its surroundings."""
    now = frame[frame.night == number]
    alike = frame[(frame.night < number) & frame.surroundings.isin(now.surroundings)]
    return now.set_index("row"), alike


def _slower(frame: pd.DataFrame, number: int, limits: Limits) -> list[Moved]:
    now, alike = _earlier(frame, number)
    timed = alike.dropna(subset="step_s").sort_values("night").groupby("row")
    latest = timed.tail(NIGHTS_TO_COMPARE_TIMES_WITH).groupby("row").step_s
    usual = latest.median()[latest.count() >= NIGHTS_BEFORE_TIMES_ARE_COMPARED]
    both = pd.DataFrame({"before": usual, "now": now.step_s}).dropna()
    slow = both[both.now > limits.slower * both.before]
    order = (slow.now / slow.before).sort_values(ascending=False).index
    return [Moved(str(name), "step_s", *slow.loc[name, ["before", "now"]]) for name in order]


def _moved(frame: pd.DataFrame, number: int, limits: Limits) -> list[Moved]:
    now, alike = _earlier(frame, number)
    found = []
    for what in FIGURES:
        old = alike.dropna(subset=what).sort_values("night").groupby("row")[what].last()
        both = pd.DataFrame({"before": old, "now": now[what]}).dropna()
        with np.errstate(invalid="ignore"):  # exact twice: infinity less infinity
            distance = (both.now - both.before).abs()
        both = both[distance > limits.moved_db]
        found += [Moved(str(name), what, line.before, line.now) for name, line in both.iterrows()]
    return found


def _differences(before: Night, last: Night) -> list[str]:
    old, new = dict(before.surroundings), dict(last.surroundings)
    names = [*new, *(name for name in old if name not in new)]
    return [
        f"{name} {old.get(name, 'unknown')} -> {new.get(name, 'unknown')}"
        for name in names
        if old.get(name) != new.get(name)
    ]
