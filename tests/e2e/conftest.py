import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.command_line import cli, is_rank, write

__all__ = ["cli", "write"]

DEADLINE_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started in another folder run the code under test, not what is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Started:
    """The command line in a process of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._log = folder / f"output-{time.monotonic_ns()}.txt"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.cli", *map(str, arguments)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the process does; its end, or the deadline, is a failure."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def ranks(self) -> list[psutil.Process]:
        """Its living ranks, in order."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)  # they are forked from a forkserver
        except psutil.NoSuchProcess:
            return []
        return sorted(filter(is_rank, children), key=lambda rank: (rank.create_time(), rank.pid))

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def start_command(*arguments: object) -> Started:
        started.append(Started(tmp_path, *arguments))
        return started[-1]

    yield start_command
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()
