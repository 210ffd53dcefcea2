import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 60.0

FAKES = """\
schema = 1
name = "fakes"
model = "fake"
steps = 2
golden = "{golden}"

[[case]]
size = ["128x128", "144x144"]
prompt = "waves"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["auto", "h", "w"]
"""


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]
Write = Callable[..., Path]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line inside this process: quick. Nothing it has started may be left."""
    from harness.cli.app import main

    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["sp-harness", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        return Done(code if isinstance(code, int) else int(bool(code)), *capfd.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)
    assert not any(map(is_rank, psutil.Process().children(recursive=True)))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a matrix file; ``golden/`` lies beside its folder."""

    def write_matrix(text: str = FAKES.format(golden="off"), name: str = "fakes.toml") -> Path:
        path = tmp_path / "matrices" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_matrix


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


def is_rank(process: psutil.Process) -> bool:
    try:
        return process.name() == "sp-rank" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait until all have ended; one that nobody has reaped yet counts as ended."""
    deadline = time.monotonic() + DEADLINE_S
    while any(is_rank(process) for process in processes):
        assert time.monotonic() < deadline, f"still there: {processes}"
        time.sleep(0.02)


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
