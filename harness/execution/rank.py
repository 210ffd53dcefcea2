"""One rank as its parent sees it: a process that takes orders, replies, writes a log and ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.environments import child_process
from harness.execution.forkserver import Forkserver
from harness.worker import protocol
from harness.worker.protocol import STACK_SIGNAL, Message, Order, Start

LOOK_MS = 100
"""Interval at which the end of a rank is waited for."""
FORKSERVER_GRACE_MS = 5000
"""Time for a stopped forkserver to be continued, as a job that is resumed as a whole; no one else knows exit codes."""


class Rank(ABC):
    """A rank, wherever it runs.

    Parameters
    ----------
    log
        File that gets what the rank prints.
    replies
        Descriptor its replies are read from; it closes when the rank ends.
    device_index
        GPU it is to use, on its own machine.
    """

    node = ""
    """Name of its node; empty on this machine."""
    rendezvous = ""
    """Meeting point of its group (see :class:`~harness.worker.protocol.Start`), unless all of it is on this machine."""
    lost = ""
    """Reason why its state is unknown, where the connection to its node is lost."""

    def __init__(self, log: Path, replies: int, device_index: int) -> None:
        self.log = log
        self.replies = replies
        self.device_index = device_index
        self._buffer = b""
        self._log_offset = 0

    def read(self) -> list[Message] | None:
        """Replies that have arrived since; ``None`` when there will be no more."""
        lines = self.read_lines()
        return None if lines is None else [protocol.decode(line) for line in lines]

    def read_lines(self) -> list[bytes] | None:
        """Read as :meth:`read` does, without decoding."""
        data = os.read(self.replies, 1 << 20)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return lines

    def send(self, order: Start | Order) -> None:
        """Send an order; a dead rank is noticed where its reply is awaited."""
        self.write(protocol.encode(order))

    def mark_log(self) -> None:
        """Mark the end of the log, before a new request."""
        self._log_offset = self.log.stat().st_size

    def log_since(self, offset: int | None = None) -> str:
        """Read the log from an offset on, by default from :meth:`mark_log` on."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset if offset is None else offset)
            return file.read().decode("utf-8", "replace")

    @abstractmethod
    def write(self, line: bytes) -> None:
        """Send a line that is encoded already."""

    @abstractmethod
    def poll(self) -> int | None:
        """Exit code of a rank that has ended, negative for a signal; ``None`` while it lives."""

    @abstractmethod
    def wait(self) -> int:
        """Wait for the end and return the exit code."""

    @abstractmethod
    def print_stacks(self) -> None:
        """Make the rank print the stacks of its threads into its log."""

    def stopped(self) -> str:
        """State of a rank that a signal or a debugger has stopped, such as ``T (stopped)``; empty otherwise."""
        return ""

    @abstractmethod
    def kill(self) -> None:
        """End the rank now, with all that its engine started."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held for the rank; it has ended."""


class ForkedRank(Rank):
    """A rank on this machine, which leads a process session of its own.

    Parameters
    ----------
    log, device_index
        As those of every rank.
    modules
        What it needs, imported before it is forked.
    python
        Interpreter of another environment; empty for this one.
    """

    def __init__(self, log: Path, modules: Sequence[str], device_index: int = 0, python: str = "") -> None:
        with contextlib.ExitStack() as made:
            (orders, own_orders), (replies, own_replies), (self._status, ended) = (_pipe(made) for _ in range(3))
            super().__init__(log, replies, device_index)
            self._orders: int | None = own_orders
            self._forkserver = Forkserver.here(log, python)
            self._lock = threading.Lock()
            self._lines = b""
            self._over: int | None = None
            self._is_swept = False
            with log.open("ab") as output:
                self._forkserver.fork(modules, (orders, own_replies, output.fileno(), ended))
            made.pop_all()  # from here on our ends are closed by close()
        for descriptor in (orders, own_replies, ended):
            os.close(descriptor)

    @property
    def pid(self) -> int | None:
        """The process; ``None`` until it has been forked, and where the system refuses to."""
        self._listen()
        pid, _, _ = self._lines.partition(b"\n")
        return int(pid or 0) or None

    def write(self, line: bytes) -> None:
        """Send a line; one that has ended gets none."""
        with contextlib.suppress(BrokenPipeError):
            while line and self._orders is not None:
                line = line[os.write(self._orders, line) :]

    def poll(self) -> int | None:
        """Exit code, if it has ended."""
        self._listen()
        return self._over

    def wait(self) -> int:
        """Wait for the end."""
        looks = 0
        while self._over is None:
            self._listen(timeout_ms=LOOK_MS)
            state = self._forkserver.stopped()
            looks = looks + 1 if state else 0
            if looks * LOOK_MS > FORKSERVER_GRACE_MS:
                self.lost = state
                self._forkserver.process.kill()  # the pipe of the exit code closes with it
        return self._over

    def print_stacks(self) -> None:
        """Send the signal that a rank answers with its stacks."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, STACK_SIGNAL)

    def stopped(self) -> str:
        """Read its state from ``/proc``, or that of the forkserver where it is not forked yet."""
        return child_process.stopped(self.pid) if self.pid else self._forkserver.stopped()

    def kill(self) -> None:
        """End its process session; a rank that is not forked yet is abandoned, and ends as soon as it is."""
        pid = self.pid
        if pid is None and self._forkserver.stopped():  # it would keep the next ranks waiting too
            self._forkserver.process.kill()
        if pid is None or self._is_swept:
            return
        # What its engine started is found by the session, which keeps the number while any of it lives. The rank
        # itself is found by its own if it does not lead a session yet; once it has ended, the number may be another's.
        for kill in (os.killpg, os.kill) if self.poll() is None else (os.killpg,):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        self.wait()
        self._is_swept = True

    def close(self) -> None:
        """Close our ends of its pipes."""
        with self._lock:
            if self._orders is not None:
                os.close(self._orders)
                self._orders = None
            if self._over is None:
                self._over = -signal.SIGKILL
            for descriptor in (self.replies, self._status):
                os.close(descriptor)

    def _listen(self, timeout_ms: int = 0) -> None:
        """Read this rank's status from the forkserver: a line with its pid, then one with its exit code."""
        with self._lock:
            poll = select.poll()
            poll.register(self._status, select.POLLIN)
            while self._over is None and poll.poll(timeout_ms):
                data = os.read(self._status, 64)
                self._lines += data
                if self._lines.count(b"\n") == 2:
                    self._over = int(self._lines.split()[1])
                elif not data:  # the forkserver has ended: the exit code is unknown
                    self._over = self._forkserver.process.wait()


def fork_ranks(logs: Path, modules: Sequence[str], devices: Sequence[int], python: str = "") -> Iterator[ForkedRank]:
    """Fork the ranks of a group on this machine, one for each device, with a log for each."""
    for index, device in enumerate(devices):
        yield ForkedRank(logs / f"rank-{index}.log", modules, device, python)


def _pipe(made: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed again if what follows fails: descriptors may be what there is too little of."""
    ends = os.pipe()
    for end in ends:
        made.callback(os.close, end)
    return ends
