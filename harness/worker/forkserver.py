"""Forkserver: a process that imports once what ranks need, and forks them.

Started as ``python -m harness.worker.forkserver FD``. Each line received through the socket ``FD`` requests one
rank: it holds the modules to import before, and comes with the rank's file descriptors. The forkserver never
computes, so it starts no thread and has no CUDA context: a process with either cannot be forked. The pid of a
rank and, once it has ended, its exit code are written to its descriptor ``status``, since a forked rank is no
child of the process that requested it. When the socket closes no rank is forked any more, and the forkserver
ends with its last rank. The end of the process that requested ranks continues a forkserver that a signal has stopped,
and the end of the forkserver a stopped rank, so that each can end.

Forked ranks share Python's hash seed, so that sets of strings have one order in all ranks of a group.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from harness.worker.main import main as run_rank

PROCESS_NAME = "sp-rank"
MAX_DESCRIPTORS = 4
"""Of one rank: orders, replies, log, status."""
PR_SET_PDEATHSIG = 1
"""Of ``prctl(2)``."""
ORPHANED_POLL_S = 0.5
"""Interval at which the parent process is looked for once the socket is closed."""


class Forkserver:
    """Forks ranks on requests through the socket ``control``, and reports how they end."""

    def __init__(self, control: socket.socket) -> None:
        self._control: socket.socket | None = control
        self._statuses: dict[int, int] = {}
        self._imported: set[str] = set()
        self._parent = os.getppid()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> int | None:
        """Fork and wait; returns in a rank, with the descriptor of its replies, or when all ranks have ended."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(_given(self._control), selectors.EVENT_READ)
            while self._control or self._statuses:
                if not self._control and os.getppid() != self._parent:
                    self._end_ranks()
                for key, _ in selector.select(None if self._control else ORPHANED_POLL_S):
                    if key.fileobj == self._woken:
                        os.read(self._woken, 4096)
                        self._reap()
                        continue
                    modules, descriptors = _receive(_given(self._control))
                    if not descriptors:
                        selector.unregister(_given(self._control))
                        self._close_control()
                        continue
                    self._import(modules)
                    if self._fork(descriptors):
                        self._become_rank(descriptors)
                        return descriptors[1]
        return None

    def _import(self, modules: Sequence[str]) -> None:
        missing = [name for name in modules if name not in self._imported]
        for name in missing:
            self._imported.add(name)
            try:
                importlib.import_module(name)
            except Exception:  # a rank that needs it fails by itself, with the error in its own log
                traceback.print_exc()
        if missing:
            gc.collect()
            gc.freeze()  # what is there now stays shared: a rank's collector would write to every page of it

    def _fork(self, descriptors: Sequence[int]) -> bool:
        """Fork; ``True`` in the new rank. The forkserver keeps nothing but the rank's status descriptor."""
        *others, status = descriptors
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory for one more: this rank's failure, not the others'
            with contextlib.suppress(OSError):
                os.write(others[-1], f"the rank cannot be forked: {error.strerror}\n".encode())
            _report(status, 0)
            _report(status, 1)
            others.append(status)
        else:
            if pid == 0:
                return True
            self._statuses[pid] = status
            _report(status, pid)
        for descriptor in others:
            os.close(descriptor)
        return False

    def _become_rank(self, descriptors: Sequence[int]) -> None:
        os.setsid()
        _continue_with_end_of_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        orders, _, log, status = descriptors
        os.dup2(orders, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for descriptor in (orders, log, status, self._woken, self._wake, *self._statuses.values()):
            os.close(descriptor)
        self._close_control()

    def _end_ranks(self) -> None:
        """Kill the ranks of a parent that has ended: a rank ends by itself, unless a signal has stopped it."""
        for pid in self._statuses:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._statuses:
            pid, ending = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            status = self._statuses.pop(pid)
            _report(status, os.waitstatus_to_exitcode(ending))
            os.close(status)

    def _close_control(self) -> None:
        _given(self._control).close()
        self._control = None


def main() -> None:
    """Import and fork until the socket closes and all ranks have ended."""
    # Importing starts threads where libraries have helpers that wait for events, such as the one of the driver's
    # NVML, which torch asks whether there is a GPU. They hold no lock that a rank could want.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a rank
    _continue_with_end_of_parent()
    replies = Forkserver(socket.socket(fileno=int(sys.argv[1]))).serve()
    if replies is not None:
        with contextlib.suppress(OSError):  # Linux: what ps and top call it
            Path("/proc/self/comm").write_text(PROCESS_NAME)
        run_rank(replies)


def _continue_with_end_of_parent() -> None:
    """Ask Linux for ``SIGCONT`` when the parent process ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)


def _report(status: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent waits for this rank no more
        os.write(status, b"%d\n" % number)


def _receive(control: socket.socket) -> tuple[list[str], list[int]]:
    """Receive the modules of one rank and its descriptors; none at the end."""
    # Descriptors hold data apart: no more is read at once than came with them.
    line, descriptors, _, _ = socket.recv_fds(control, 1 << 16, MAX_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return line.decode().split(), descriptors


def _given(control: socket.socket | None) -> socket.socket:
    assert control is not None
    return control


if __name__ == "__main__":
    main()
