"""Advisory locks that end with their owner, and say who holds them.

A lock is a file, held by the kernel for a living process: nothing has to be cleaned up after one that was
killed. Beside it lies a note of who holds it, for the message to whoever wants it too. Within one process
a lock may be taken more than once; it is free when each has been given back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import codec
from harness.errors import UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: the note beside it."""

    pid: int
    purpose: str
    since_s: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.purpose}), since {time.strftime('%H:%M:%S', time.localtime(self.since_s))}"


class Held:
    """A lock this process holds; give it back with :meth:`release`."""

    def __init__(self, lock: BaseFileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def attempt(path: Path, purpose: str) -> Held | None:
    """Take a lock if it is free.

    Parameters
    ----------
    path
        The lock's file; its folder exists. It stays when the lock is free again.
    purpose
        What it is held for, told to whoever wants it too.

    Returns
    -------
    Held or None
        ``None`` if another process holds it.

    Raises
    ------
    OSError
        If the file cannot be opened for writing.
    """
    from filelock import FileLock, Timeout

    # Any user of the machine may come next, so any may open the file.
    lock = FileLock(path.absolute(), timeout=0, mode=0o666, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        return None
    if lock.lock_counter == 1:
        codec.write_json(_note(path), Holder(os.getpid(), purpose, round(time.time(), 3)))
    return Held(lock)


@contextmanager
def claimed(folder: Path, purpose: str) -> Iterator[None]:
    """Keep other processes from working in a run folder meanwhile.

    Raises
    ------
    UsageError
        If one does already.
    """
    path = folder / ".lock"
    try:
        held = attempt(path, purpose)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error})") from None
    if held is None:
        raise UsageError(f"{folder}: {holder(path)} works in it; let it finish, or stop it first")
    try:
        yield
    finally:
        held.release()


def holder(path: Path) -> str:
    """Name who holds a lock, for a message; of use only while it cannot be had."""
    try:
        return str(codec.decode(Holder, json.loads(_note(path).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):  # between taking the lock and writing the note, or another version's
        return "another process"


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder.json")
