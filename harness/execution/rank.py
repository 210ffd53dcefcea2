"""One rank as its parent sees it: a process that takes orders, replies, writes a log and ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from harness.execution.forkserver import Forkserver
from harness.worker import protocol
from harness.worker.protocol import STACK_SIGNAL, Message, Order, Start

WORKER = "harness.worker.main"


class StartFailed(Exception):
    """Ranks could not be started: one line, and what there is to read beyond it."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


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
    model_path = ""
    """Where the checkpoint lies on another node."""
    lost = ""
    """Why nothing can be known of a rank any more, where its machine is to blame."""
    unwritable: tuple[Path, OSError] | None = None
    """Where this machine cannot keep what a rank on another sends, and what the system says."""

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
        """From here on the log speaks of a new request."""
        self._log_offset = self.log.stat().st_size

    def log_since(self, offset: int | None = None) -> str:
        """What was printed since an offset, by default since :meth:`mark_log`."""
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

    def asleep(self) -> str:
        """Why the system does not let the rank run, such as ``T (stopped)``; empty where it does, or is silent."""
        return ""

    @abstractmethod
    def kill(self) -> None:
        """End the rank now, with all that its engine started."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held for the rank; it has ended."""


WORKER = "harness.worker.main"
"""The program of a rank that draws."""


class ForkedRank(Rank):
    """A rank on this machine, which leads a process session of its own.

    Parameters
    ----------
    log, device_index
        As those of every rank.
    modules
        What it needs, imported before it is forked.
    program
        Module of ours that it runs; another than the worker takes and gives what that module says.
    """

    def __init__(self, log: Path, modules: Sequence[str], device_index: int = 0, program: str = WORKER) -> None:
        with contextlib.ExitStack() as made:
            (orders, own_orders), (replies, told), (self._fate, ended) = (_pipe(made) for _ in range(3))
            super().__init__(log, replies, device_index)
            self._orders: int | None = own_orders
            self._forkserver = Forkserver.here(log)
            self._lock = threading.Lock()
            self._lines = b""
            self._over: int | None = None
            self._is_swept = False
            with log.open("ab") as output:
                self._forkserver.fork((program, *modules), (orders, told, output.fileno(), ended))
            made.pop_all()  # from here on our ends are closed by close()
        for descriptor in (orders, told, ended):
            os.close(descriptor)

    @property
    def pid(self) -> int | None:
        """The process; ``None`` until it has been forked, and where the system refuses to."""
        self._listen()
        pid, _, _ = self._lines.partition(b"\n")
        return int(pid or 0) or None

    def write(self, line: bytes) -> None:
        """Send a line."""
        assert self._orders is not None
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._orders, line) :]

    def offer(self, line: bytes) -> bool:
        """Send a short line if the pipe has room for it; ``True`` also where the process has ended."""
        with self._lock:
            if self._orders is None:
                return True
            poll = select.poll()
            poll.register(self._orders, select.POLLOUT)  # there is room for what a pipe takes in one piece
            if not poll.poll(0):
                return False
            self.write(line)
            return True

    def hang_up(self) -> None:
        """Give no more orders: it ends, and where it is not forked yet it will end at its first breath."""
        with self._lock:
            if self._orders is not None:
                os.close(self._orders)
                self._orders = None

    def poll(self) -> int | None:
        """Exit code, if it has ended."""
        self._listen()
        return self._over

    def wait(self) -> int:
        """Wait for the end."""
        while self._over is None:
            self._listen(timeout_ms=100)
        return self._over

    def print_stacks(self) -> None:
        """Send the signal that a rank answers with its stacks."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, STACK_SIGNAL)

    def asleep(self) -> str:
        """Its state as Linux tells it, if a signal or a debugger has stopped it."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
                name, _, state = line.partition(":")
                if name == "State" and state.strip()[0] in "Tt":
                    return state.strip()
        return ""

    def kill(self) -> None:
        """End its process session; a rank that is not forked yet is given up, and ends at its first breath."""
        pid = self.pid
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
        self.hang_up()
        with self._lock:
            if self._over is None:
                self._over = -signal.SIGKILL
            for descriptor in (self.replies, self._fate):
                os.close(descriptor)

    def _listen(self, timeout_ms: int = 0) -> None:
        """Take what the forkserver tells of this rank: a line with its pid, then one with its exit code."""
        with self._lock:
            poll = select.poll()
            poll.register(self._fate, select.POLLIN)
            while self._over is None and poll.poll(timeout_ms):
                data = os.read(self._fate, 64)
                self._lines += data
                if self._lines.count(b"\n") == 2:
                    self._over = int(self._lines.split()[1])
                elif not data:  # the forkserver is gone: nobody can tell any more
                    self._over = self._forkserver.process.wait()


def _pipe(made: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed again if what follows fails: descriptors may be what there is too little of."""
    ends = os.pipe()
    for end in ends:
        made.callback(os.close, end)
    return ends
