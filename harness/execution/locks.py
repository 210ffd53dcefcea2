"""Advisory locks that end with their owner, each with a note of its holder.

A lock is a file, held by the kernel for a living process: nothing has to be cleaned up after one that was
killed. Beside it lies a note of who holds it, for the message to whoever wants it too; each user has a note
of their own, since in a folder of all users nobody may replace another's. Within one process a lock may be
taken more than once; it is free when each has been given back.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import codec, files
from harness.errors import UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class Holder:
    """Note beside a lock: the process that holds it."""

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
        Purpose, shown to other processes that want the lock.

    Returns
    -------
    Held or None
        ``None`` if another process holds it.

    Raises
    ------
    OSError
        If the file cannot be opened for writing, or no note be left beside it.
    """
    from filelock import FileLock, Timeout

    # Any user of the machine may come next, so any may open the file.
    lock = FileLock(path.absolute(), timeout=0, mode=0o666, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        return None
    if lock.lock_counter == 1:
        try:
            _leave_note(path, Holder(os.getpid(), purpose, round(time.time(), 3)))
        except OSError:
            lock.release()
            raise
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
    notes = []
    for note in filter(Path.is_file, path.parent.glob(f"{path.name}.holder*.json")):
        # It may be there no more, or not be of this version, or of somebody who plays tricks.
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
            found = codec.decode(Holder, json.loads(note.read_text(encoding="utf-8")))
            notes.append((float(found.since_s), str(found)))
    return max(notes)[1] if notes else "another process"  # which has taken the lock and not left its note yet


def _leave_note(path: Path, holder: Holder) -> None:
    """Write the note so that it is seen whole, through a file that nobody could have put there before."""
    note = path.with_name(f"{path.name}.holder-{os.getuid()}.json")
    files.write_text(note, json.dumps(codec.encode(holder)), mode=0o644)  # who wants the lock may be another user
