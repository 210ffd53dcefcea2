"""Changes between the last run of a matrix and the runs before it, computed on a table of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from harness.history.entry import FIGURES, Entry
from harness.types import Outcome

FAILING = {outcome.value for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT, Outcome.NO_GOLDEN)}
JUDGED = FAILING | {Outcome.PASS.value}
"""Outcomes that count as judged: a skipped row, or one that was not reached, does not."""

RUNS_IN_TIME_MEDIAN = 7
MIN_RUNS_FOR_TIMES = 3
"""Steps bound by kernel launches vary by half from run to run."""
RUNS_IN_DRIFT, RUNS_IN_DRIFT_MEDIAN = 30, 3
"""Runs that a drift is looked for in, and how many at each end are taken together."""
EXACT = float("inf")
"""Value in dB columns for two sides that are equal to the last bit."""


@dataclass(frozen=True)
class Limits:
    """Thresholds above which a difference counts as a change."""

    slower: float = 1.25
    """Ratio of seconds per step to the median of earlier runs in an equal environment."""
    moved_db: float = 1.0
    """Distance in dB between two runs in equal environments; becoming or ceasing to be exact always counts."""


@dataclass(frozen=True)
class Failing:
    """A row that fails in the last run."""

    row: str
    cause: str | None
    sentence: str
    since_run: str
    since: str
    num_runs: int
    """Consecutive judged runs in which it failed, the last one included."""


@dataclass(frozen=True)
class Moved:
    """A figure that moved: a row's seconds a step, or one of :data:`harness.history.entry.FIGURES`."""

    row: str
    what: str
    before: float
    now: float


@dataclass(frozen=True)
class Changes:
    """The last run compared with those before it."""

    last: Entry
    before: Entry | None
    newly_failing: tuple[Failing, ...] = ()
    still_failing: tuple[Failing, ...] = ()
    failing_after_gap: tuple[Failing, ...] = ()
    """Rows that the run before did not judge, or left no report of: since when they fail is not known."""
    mended: tuple[str, ...] = ()
    slower: tuple[Moved, ...] = ()
    figures: tuple[Moved, ...] = ()
    drifting: tuple[Moved, ...] = ()
    """Figures that fall from run to run, each time by less than counts as a change: before and now are medians."""
    appeared: tuple[str, ...] = ()
    """Rows that no run before had."""
    gone: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Differences of device, driver, libraries or weights; figures and times are then not compared."""
    others: tuple[str, ...] = field(default=())
    """Rows that are neither judged nor skipped."""

    @property
    def failing(self) -> tuple[Failing, ...]:
        """All rows that fail, those that are new to it first."""
        return (*self.newly_failing, *self.failing_after_gap, *self.still_failing)


def table(entries: Sequence[Entry]) -> pd.DataFrame:
    """One line per run and row, entries numbered in order; ``environment`` numbers different ones from 0."""
    kinds = {
        kind: number for number, kind in enumerate(dict.fromkeys(entry.comparable_environment for entry in entries))
    }
    found = [
        {
            "entry": number,
            "environment": kinds[entry.comparable_environment],
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
        for number, entry in enumerate(entries)
        for name, row in entry.rows.items()
    ]
    numbers = [*FIGURES, "step_s", "baseline_step_s", "peak_memory_bytes", "wall_s"]
    columns = ["entry", "environment", "row", "outcome", "cause", "sentence", *numbers]
    return pd.DataFrame(found, columns=columns).astype(dict.fromkeys(numbers, "float64"))


def changes(entries: Sequence[Entry], limits: Limits = Limits()) -> Changes:
    """Compare the last run of a matrix with those before it.

    Parameters
    ----------
    entries
        Runs of one matrix in order, at least one.
    limits
        Thresholds of a change.
    """
    last, before = entries[-1], entries[-2] if len(entries) > 1 else None
    frame = table(entries)
    number = len(entries) - 1
    failing = [_failing(entries, frame[frame.row == name]) for name in _names(frame, number, FAILING)]
    old = _last_outcomes(frame[frame.entry < number])
    now = frame[frame.entry == number].set_index("row")
    known = set(frame[frame.entry < number].row)
    fresh = [found for found in failing if old.get(found.row) not in FAILING]
    judged = frame[(frame.entry == number - 1) & frame.outcome.isin(JUDGED)].row
    gap = [found for found in fresh if found.row in old and found.row not in set(judged)]
    moved = _moved(frame, number, limits)
    return Changes(
        last,
        before,
        newly_failing=tuple(found for found in fresh if found not in gap),
        still_failing=tuple(found for found in failing if found not in fresh),
        failing_after_gap=tuple(gap),
        mended=tuple(name for name in _names(frame, number, {Outcome.PASS.value}) if old.get(name) in FAILING),
        slower=tuple(_slower(frame, number, limits)),
        figures=tuple(moved),
        drifting=tuple(_drifting(frame, number, limits, {(one.row, one.what) for one in moved})),
        appeared=tuple(name for name in now.index if before and name not in known),
        gone=tuple(name for name in (before.rows if before else ()) if name not in last.rows),
        environment=tuple(_differences(before, last)) if before else (),
        others=tuple(now.index[now.outcome.isna()]),
    )


def _column(figures_db: Any, what: str) -> float:
    value = figures_db.get(what, np.nan)
    return EXACT if value is None else float(value)


def _names(frame: pd.DataFrame, number: int, outcomes: set[str]) -> list[str]:
    return list(frame[(frame.entry == number) & frame.outcome.isin(outcomes)].row)


def _last_outcomes(frame: pd.DataFrame) -> dict[str, str]:
    """Outcome of each row in the last run that judged it."""
    judged = frame[frame.outcome.isin(JUDGED)]
    return dict(judged.groupby("row").outcome.last())


def _failing(entries: Sequence[Entry], rows: pd.DataFrame) -> Failing:
    judged = rows[rows.outcome.isin(JUDGED)]
    passed = judged[~judged.outcome.isin(FAILING)]
    streak = judged[judged.entry > (passed.entry.max() if len(passed) else -1)]
    first, last = entries[streak.entry.iloc[0]], streak.iloc[-1]
    cause = last.cause if isinstance(last.cause, str) else None
    return Failing(last.row, cause, last.sentence, first.run, first.started_at, len(streak))


def _earlier(frame: pd.DataFrame, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the last run, and those of earlier runs in the same environment."""
    now = frame[frame.entry == number]
    alike = frame[(frame.entry < number) & frame.environment.isin(now.environment)]
    return now.set_index("row"), alike


def _slower(frame: pd.DataFrame, number: int, limits: Limits) -> list[Moved]:
    now, alike = _earlier(frame, number)
    timed = alike.dropna(subset="step_s").sort_values("entry").groupby("row")
    latest = timed.tail(RUNS_IN_TIME_MEDIAN).groupby("row").step_s
    usual = latest.median()[latest.count() >= MIN_RUNS_FOR_TIMES]
    both = pd.DataFrame({"before": usual, "now": now.step_s}).dropna()
    slow = both[both.now > limits.slower * both.before]
    order = (slow.now / slow.before).sort_values(ascending=False).index
    return [Moved(str(name), "step_s", *slow.loc[name, ["before", "now"]]) for name in order]


def _moved(frame: pd.DataFrame, number: int, limits: Limits) -> list[Moved]:
    now, alike = _earlier(frame, number)
    found = []
    for what in FIGURES:
        old = alike.dropna(subset=what).sort_values("entry").groupby("row")[what].last()
        both = pd.DataFrame({"before": old, "now": now[what]}).dropna()
        with np.errstate(invalid="ignore"):  # exact twice: infinity less infinity
            distance = (both.now - both.before).abs()
        both = both[distance > limits.moved_db]
        found += [Moved(str(name), what, line.before, line.now) for name, line in both.iterrows()]
    return found


def _drifting(frame: pd.DataFrame, number: int, limits: Limits, told: set[tuple[str, str]]) -> list[Moved]:
    """Compare the medians of a figure's first and last runs in this environment; what moved at once is told already."""
    now, alike = _earlier(frame, number)
    present = frame[frame.entry == number]
    found = []
    for what in FIGURES:
        series = pd.concat([alike, present]).dropna(subset=what)
        series = series[series[what] != EXACT].sort_values("entry")
        by_row: dict[Any, Any] = dict(iter(series.groupby("row")[what]))
        for name in now.index.intersection(list(by_row)):
            values = by_row[name].tail(RUNS_IN_DRIFT)
            if len(values) < 2 * RUNS_IN_DRIFT_MEDIAN or (name, what) in told:
                continue
            first, last = values.head(RUNS_IN_DRIFT_MEDIAN).median(), values.tail(RUNS_IN_DRIFT_MEDIAN).median()
            if first - last > limits.moved_db:
                found.append(Moved(str(name), what, first, last))
    return found


def _differences(before: Entry, last: Entry) -> list[str]:
    old, new = dict(before.comparable_environment), dict(last.comparable_environment)
    names = [*new, *(name for name in old if name not in new)]
    return [
        f"{name} {old.get(name, 'unknown')} -> {new.get(name, 'unknown')}"
        for name in names
        if old.get(name) != new.get(name)
    ]
