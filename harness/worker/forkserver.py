"""The program ranks are forked from: it imports once what they need, and then only forks.

Started as ``python -m harness.worker.forkserver FD``. Each line that comes through the socket ``FD`` asks for one
rank: it names the program the rank is to run (a module with ``PROCESS_NAME`` and ``main``) and the modules to
have imported before, and brings the rank's file descriptors. The forkserver never
computes, so it starts no thread and has no CUDA context: a process that has cannot be forked. A rank's pid
and, when it is over, its exit code go to its descriptor ``fate``, since a forked rank is no child of who
asked for it. When the socket closes no rank is forked any more, and the program ends with its last one.

What forked ranks share and processes started one by one do not: Python's hash seed, so that sets of strings
have one order in all ranks of a group.
"""

from __future__ import annotations

import contextlib
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

MAX_DESCRIPTORS = 4
"""Of one rank: its orders, its replies, its log, its fate."""
ORPHANED_POLL_S = 0.5
"""How often to see, once nobody asks for ranks any more, whether whoever did is still there."""


class Forkserver:
    """Forks ranks for whoever holds the other end of ``control``, and tells how they end."""

    def __init__(self, control: socket.socket) -> None:
        self._control: socket.socket | None = control
        self._fates: dict[int, int] = {}
        self._imported: set[str] = set()
        self._parent = os.getppid()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> tuple[str, int] | None:
        """Fork and wait; returns in a rank, with its program and the descriptor of its replies, or when all is over."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(_given(self._control), selectors.EVENT_READ)
            while self._control or self._fates:
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
                        return modules[0], descriptors[1]
        return None

    def _import(self, modules: Sequence[str]) -> None:
        missing = [name for name in modules if name not in self._imported]
        for name in missing:
            self._imported.add(name)
            try:
                importlib.import_module(name)
            except Exception:  # a rank that needs it fails by itself, and says so where it is read
                traceback.print_exc()
        if missing:
            gc.collect()
            gc.freeze()  # what is there now stays shared: a rank's collector would write to every page of it

    def _fork(self, descriptors: Sequence[int]) -> bool:
        """Whether this is the new rank; the forkserver keeps nothing but the rank's fate."""
        *others, fate = descriptors
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory for one more: this rank's fate, not the others'
            with contextlib.suppress(OSError):
                os.write(others[-1], f"the rank cannot be forked: {error.strerror}\n".encode())
            _tell(fate, 0)
            _tell(fate, 1)
            others.append(fate)
        else:
            if pid == 0:
                return True
            self._fates[pid] = fate
            _tell(fate, pid)
        for descriptor in others:
            os.close(descriptor)
        return False

    def _become_rank(self, descriptors: Sequence[int]) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        orders, _, log, fate = descriptors
        os.dup2(orders, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for descriptor in (orders, log, fate, self._woken, self._wake, *self._fates.values()):
            os.close(descriptor)
        self._close_control()

    def _end_ranks(self) -> None:
        """End what nobody waits for any more: a rank does so by itself, unless it is stopped."""
        for pid in self._fates:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._fates:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            fate = self._fates.pop(pid)
            _tell(fate, os.waitstatus_to_exitcode(status))
            os.close(fate)

    def _close_control(self) -> None:
        _given(self._control).close()
        self._control = None


def main() -> None:
    """Import and fork until nobody asks any more."""
    # Importing starts threads where libraries have helpers that wait for events, such as the one of the driver's
    # NVML, which torch asks whether there is a GPU. They hold no lock that a rank could want.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a rank
    forked = Forkserver(socket.socket(fileno=int(sys.argv[1]))).serve()
    if forked is not None:
        name, replies = forked
        program = importlib.import_module(name)
        with contextlib.suppress(OSError):  # Linux: what ps and top call it
            Path("/proc/self/comm").write_text(program.PROCESS_NAME)
        program.main(replies)


def _tell(fate: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for this rank any more
        os.write(fate, b"%d\n" % number)


def _receive(control: socket.socket) -> tuple[list[str], list[int]]:
    """Take the modules of one rank, its program first, and its descriptors; none at the end."""
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
