"""A rank on any node of a run, spoken to over the network and otherwise like one of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harness.execution.rank import Rank
from harness.execution.wire import Line

KILL_GRACE_S = 10.0
"""A node that is alive kills its rank within milliseconds, and says so."""
READER_POLL_MS = 100


class RemoteRank(Rank):
    """A rank behind an :mod:`harness.execution.outpost`.

    Parameters
    ----------
    line
        The line to its outpost.
    log
        File that gets what the rank prints, over there.
    device_index
        GPU it is to use, over there.
    node
        Name of its node; empty on the head.
    on_close
        Called when the rank has been closed.
    """

    def __init__(self, line: Line, log: Path, device_index: int, node: str, on_close: Callable[[], None]) -> None:
        replies, told = os.pipe()
        os.set_blocking(told, False)
        super().__init__(log, replies, device_index)
        self.node = node
        self.is_closed = False
        self._line = line
        self._on_close = on_close
        self._folder = Path()
        self._asleep = ""
        self._over: int | None = None
        self._is_given_up = False
        """Nobody may be reading its replies any more."""
        self._ended = threading.Event()
        log.touch()
        self._thread = threading.Thread(target=self._listen, args=(told,), daemon=True, name="remote rank")
        self._thread.start()

    def write(self, order: Mapping[str, Any]) -> None:
        """Send an order; files of a run come back into its ``folder``."""
        self._folder = Path(order.get("folder", ""))
        self._tell({"order": dict(order)})

    def poll(self) -> int | None:
        """Exit code, if it has ended."""
        return self._over if self._ended.is_set() else None

    def wait(self) -> int:
        """Wait for the end."""
        self._ended.wait()
        assert self._over is not None
        return self._over

    def print_stacks(self) -> None:
        """Ask for the stacks, and for why there may be none."""
        self._tell({"stacks": True})

    def asleep(self) -> str:
        """Its state over there, as told when it was last asked for stacks."""
        return self._asleep

    def kill(self) -> None:
        """Have it killed over there; a node that does not answer is hung up on, and kills it when it notices."""
        self._is_given_up = True
        self._tell({"kill": True})
        if not self._ended.wait(KILL_GRACE_S):
            self._line.end()
            self._ended.wait()

    def lose(self) -> None:
        """Give the rank up: its node is gone."""
        self.lost = f"node {self.node} is gone"
        self._line.end()

    def close(self) -> None:
        """Hang up."""
        self._is_given_up = True
        self._line.end()
        self._thread.join()
        self._line.close()
        os.close(self.replies)
        self.is_closed = True
        self._on_close()

    def _tell(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a rank that is gone is noticed where its reply is awaited
            self._line.send(message)

    def _listen(self, told: int) -> None:
        """Put what comes where that of a rank of this machine would be."""
        try:
            with contextlib.suppress(EOFError, OSError), self.log.open("ab", buffering=0) as log:
                while self._over is None:
                    self._take(*self._line.receive(), log, told)
        finally:
            if self._over is None:
                self._over = -signal.SIGKILL
                self.lost = self.lost or f"the connection to {f'node {self.node}' if self.node else 'it'} broke"
            self._ended.set()  # before its replies end: who notices that asks why
            os.close(told)

    def _take(self, message: Mapping[str, Any], data: bytes, log: IO[bytes], told: int) -> None:
        if "log" in message:
            with self._kept(self.log):
                log.write(data)
        elif "file" in message:
            path = self._folder / Path(message["file"]).name
            with self._kept(path), path.open("ab") as file:
                file.write(data)
        elif "reply" in message:
            self._pass_on(json.dumps(message["reply"]).encode() + b"\n", told)
        elif "asleep" in message:
            self._asleep = message["asleep"]
        elif "ended" in message:
            self._over = message["ended"]

    @contextlib.contextmanager
    def _kept(self, path: Path) -> Iterator[None]:
        """Write what it sends inside the context; where that fails the rank is given up, and the disk here to blame."""
        try:
            yield
        except OSError as error:
            self.unwritable = path.parent, error
            raise

    def _pass_on(self, reply: bytes, told: int) -> None:
        """Write a reply, which may be more than the pipe holds, unless nobody reads it any more."""
        poll = select.poll()
        poll.register(told, select.POLLOUT)
        while reply and not self._is_given_up:
            if poll.poll(READER_POLL_MS):
                reply = reply[os.write(told, reply) :]
