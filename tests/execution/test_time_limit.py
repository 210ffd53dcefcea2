"""Time limits: seconds in which a process was stopped are no seconds of an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution.time_limit import TimeLimit

RUNS: Any = SimpleNamespace(node="", stopped=lambda: "")
STOPPED: Any = SimpleNamespace(node="", stopped=lambda: "T (stopped)")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("harness.execution.time_limit.time.monotonic", lambda: now[0])
    return now


def looks(clock: list[float], limit: TimeLimit, rank: Any, until_s: float = 100.0, every_s: float = 0.25) -> float:
    """Seconds until the limit is over."""
    began = clock[0]
    while clock[0] < began + until_s:
        clock[0] += every_s
        if limit.is_over([rank]):
            break
    return clock[0] - began


def test_ranks_that_run_have_the_limit(clock: list[float]) -> None:
    limit = TimeLimit(10.0)
    assert looks(clock, limit, RUNS) == 10.0
    assert limit.left_s == 0


def test_looks_between_messages_add_up(clock: list[float]) -> None:
    assert looks(clock, TimeLimit(10.0), RUNS, every_s=0.01) == pytest.approx(10.0, abs=0.3)


def test_a_pause_of_this_process_does_not_count(clock: list[float]) -> None:
    limit = TimeLimit(10.0)
    looks(clock, limit, RUNS, until_s=4.0)
    clock[0] += 3600.0
    assert not limit.is_over([RUNS])
    assert looks(clock, limit, RUNS) == 5.0  # one of the pause is counted, as it may be the load of the machine


def test_seconds_of_a_stopped_rank_count_apart(clock: list[float]) -> None:
    limit = TimeLimit(10.0)
    looks(clock, limit, RUNS, until_s=4.0)
    looks(clock, limit, STOPPED, until_s=9.0)
    looks(clock, limit, RUNS, until_s=4.0)
    assert looks(clock, limit, STOPPED) == 10.0


def test_a_rank_elsewhere_is_not_asked(clock: list[float]) -> None:
    limit = TimeLimit(1.0)
    assert looks(clock, limit, SimpleNamespace(node="other", stopped=None)) == 1.0
