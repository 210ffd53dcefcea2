"""Client of the forkserver, the process that ranks are forked from (:mod:`harness.worker.forkserver`).

What ranks need is imported once, there, and not by each rank. Each interpreter has a forkserver, which stays for as
long as this process lives: every group after the first starts at once. When the environment or the working directory
has changed meanwhile, it is replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from harness.environments import child_process

GRACE_S = 0.5
"""A forkserver without ranks ends within milliseconds."""


class Forkserver:
    """A running :mod:`harness.worker.forkserver`."""

    _known: ClassVar[dict[str, Forkserver]] = {}
    """By interpreter."""
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, log: Path, python: str = "") -> None:
        self._place = _place()
        self._control, theirs = socket.socketpair()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                child_process.command("harness.worker.forkserver", str(theirs.fileno()), python=python),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=environment(python),
            )
        theirs.close()
        atexit.register(self.close)

    @classmethod
    def here(cls, log: Path, python: str = "") -> Forkserver:
        """Return an interpreter's forkserver in this working directory and environment; a new one prints into ``log``.

        Parameters
        ----------
        log
            Log of the rank that is to be forked.
        python
            Interpreter of another environment; empty for this one.
        """
        with cls._lock:
            known = cls._known.get(python)
            if known is None or known._place != _place() or known.process.poll() is not None:
                if known:
                    known.close()
                known = cls._known[python] = cls(log, python)
            return known

    def fork(self, modules: Sequence[str], descriptors: Sequence[int]) -> None:
        """Request one rank without waiting for it."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [" ".join(modules).encode() + b"\n"], descriptors)

    def stopped(self) -> str:
        """Name it and its state if a signal has stopped it, else return nothing."""
        state = child_process.stopped(self.process.pid)
        return f"its forkserver, process {self.process.pid}, is in state {state}" if state else ""

    def close(self) -> None:
        """Request no more ranks: it ends with its last one."""
        atexit.unregister(self.close)
        self._control.close()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # it still has ranks
            threading.Thread(target=self.process.wait, daemon=True, name="forkserver").start()


def environment(python: str = "") -> dict[str, str]:
    """Environment of an interpreter's ranks: one thread, and no downloads."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    fixed = dict.fromkeys(threads, "1") | {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # Asks the driver's library whether there is a GPU: a process that asked CUDA itself cannot be forked.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    return child_process.environment(python) | fixed


def _place() -> tuple[str, dict[str, str]]:
    """Working directory and environment, which ranks inherit; pytest's name of the current test is left out."""
    return os.getcwd(), {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
