"""One rank as its parent sees it: a process that takes orders, replies, writes a log and ends.

Ranks are forked from a template process, so that what they need is imported once and not by each. It stays
for as long as this process lives: every group after the first starts at once. When the environment or the
working directory has changed meanwhile, it is replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness.execution import child_process

STACK_SIGNAL = signal.SIGUSR1  # as in harness.worker.main, which is never imported here

TEMPLATE_GRACE_S = 0.5
"""A template without ranks ends within milliseconds."""


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

    def read(self) -> list[dict[str, Any]] | None:
        """Replies that have arrived since; ``None`` when there will be no more."""
        data = os.read(self.replies, 1 << 20)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def mark_log(self) -> None:
        """From here on the log speaks of a new request."""
        self._log_offset = self.log.stat().st_size

    def log_since(self, offset: int | None = None) -> str:
        """What was printed since an offset, by default since :meth:`mark_log`."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset if offset is None else offset)
            return file.read().decode("utf-8", "replace")

    @abstractmethod
    def write(self, order: Mapping[str, Any]) -> None:
        """Send an order; a dead rank is noticed where its reply is awaited."""

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
            self._template = Template.here(log)
            self._lock = threading.Lock()
            self._lines = b""
            self._over: int | None = None
            self._is_swept = False
            with log.open("ab") as output:
                self._template.fork((program, *modules), (orders, told, output.fileno(), ended))
            made.pop_all()  # from here on our ends are closed by close()
        for descriptor in (orders, told, ended):
            os.close(descriptor)

    @property
    def pid(self) -> int | None:
        """The process; ``None`` until it has been forked, and where the system refuses to."""
        self._listen()
        pid, _, _ = self._lines.partition(b"\n")
        return int(pid or 0) or None

    def write(self, order: Mapping[str, Any]) -> None:
        """Send an order."""
        assert self._orders is not None
        data = json.dumps(order).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._orders, data) :]

    def offer(self, order: Mapping[str, Any]) -> bool:
        """Send a short order if that makes nobody wait; ``False`` where it would. One that has ended takes any."""
        with self._lock:
            if self._orders is None:
                return True
            poll = select.poll()
            poll.register(self._orders, select.POLLOUT)  # there is room for what a pipe takes in one piece
            if not poll.poll(0):
                return False
            self.write(order)
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
        """Take what the template tells of this rank: a line with its pid, then one with its exit code."""
        with self._lock:
            poll = select.poll()
            poll.register(self._fate, select.POLLIN)
            while self._over is None and poll.poll(timeout_ms):
                data = os.read(self._fate, 64)
                self._lines += data
                if self._lines.count(b"\n") == 2:
                    self._over = int(self._lines.split()[1])
                elif not data:  # the template is gone: nobody can tell any more
                    self._over = self._template.process.wait()


class Template:
    """The process that ranks are forked from (:mod:`harness.worker.forkserver`)."""

    _known: ClassVar[Template | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, log: Path) -> None:
        self._place = _place()
        self._control, theirs = socket.socketpair()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                child_process.command("harness.worker.forkserver", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment(),
            )
        theirs.close()
        atexit.register(self.close)

    @classmethod
    def here(cls, log: Path) -> Template:
        """The template of this place and environment; a new one prints into ``log``."""
        with cls._lock:
            known = cls._known
            if known is None or known._place != _place() or known.process.poll() is not None:
                if known:
                    known.close()
                known = cls._known = cls(log)
            return known

    def fork(self, modules: Sequence[str], descriptors: Sequence[int]) -> None:
        """Ask for one rank, its program named first, and go on; who awaits its reply notices if nobody forks."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [" ".join(modules).encode() + b"\n"], descriptors)

    def close(self) -> None:
        """Ask for no more ranks: it ends with the last it has."""
        atexit.unregister(self.close)
        self._control.close()
        try:
            self.process.wait(TEMPLATE_GRACE_S)
        except subprocess.TimeoutExpired:  # it still has ranks
            threading.Thread(target=self.process.wait, daemon=True, name="template").start()


def environment() -> dict[str, str]:
    """Environment of a rank: one thread for each, and no hub."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    fixed = dict.fromkeys(threads, "1") | {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # Asks the driver's library whether there is a GPU: a process that asked CUDA itself cannot be forked.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    return dict(os.environ) | child_process.search_path() | fixed


def _pipe(made: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed again if what follows fails: descriptors may be what there is too little of."""
    ends = os.pipe()
    for end in ends:
        made.callback(os.close, end)
    return ends


def _place() -> tuple[str, dict[str, str]]:
    """What a rank inherits from its template; pytest's note of the test at work decides nothing."""
    return os.getcwd(), {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
