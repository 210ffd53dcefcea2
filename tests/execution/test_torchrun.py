"""Agents of torchrun; what they start is seen in test_nodes.py."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.execution import torchrun
from harness.execution.torchrun import Agent, LaunchOrder

DEADLINE_S = 30.0

ORDER = LaunchOrder("launch", "127.0.0.1:29400", "127.0.0.1:29401", node=0, num_nodes=1, num_ranks=1, timeout_s=1)

Start = Callable[[str, Callable[[int], None]], Agent]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """An agent with another program in torchrun's place."""

    def make(program: str, on_exit: Callable[[int], None]) -> Agent:
        monkeypatch.setattr(torchrun, "_command", lambda *_: (sys.executable, "-c", program))
        return Agent(ORDER, b"token", "127.0.0.1", tmp_path / "torchrun.log", on_exit)

    return make


def test_an_agent_is_ended_and_says_so(start: Start) -> None:
    codes: list[int] = []
    agent = start("import time; time.sleep(600)", codes.append)
    agent.end()
    assert codes == [-signal.SIGKILL]
    assert not psutil.pid_exists(agent._process.pid)


def test_the_number_of_an_agent_that_has_ended_is_left_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """By now it may be another process's."""
    ended = threading.Event()
    agent = start("print('a word')", lambda code: ended.set())
    assert ended.wait(DEADLINE_S)
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append(pid))
    agent.end()
    assert sent == []
    assert agent.tail() == "a word\n"
