"""Exceptions, and the exit code of each kind.

    HarnessError
    |-- UsageError            2   the command line or a file a person wrote is wrong
    |   |-- ConfigError           a matrix file: names file and key
    |   `-- FileError             a run folder, golden or report that is not what it should be
    |-- GoldenError           1   a golden that was altered
    |-- InfrastructureError   3   no GPU, no hub, a launch that fails
    `-- BugError             70   any other exception: a bug of the harness

A correctness failure is no exception: it is a verdict, and ends with 1. Every message says what is
wrong, where, and what to write instead, in one line; the command line prints it without a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

EXIT_OK = 0
EXIT_VERDICT = 1
EXIT_USAGE = 2
EXIT_INFRASTRUCTURE = 3
EXIT_BUG = 70
"""``EX_SOFTWARE`` of sysexits.h; goes before all others."""
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""That of a program which ``SIGPIPE`` ends: whoever read its output has gone."""

EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO)
"""Numbers of system errors that say what a machine lacks or has broken, wherever they occur."""

UNUSABLE = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EEXIST,
)
"""Numbers of system errors that say that a path cannot be used by this user, whatever it holds."""


class HarnessError(Exception):
    """Base of all errors a user may see."""

    exit_code: ClassVar[int] = EXIT_USAGE


class UsageError(HarnessError):
    """The command line, or something it names, cannot be used."""


class ConfigError(UsageError):
    """A matrix file is wrong; the message names file and key."""


class FileError(UsageError):
    """A file or folder of ours is missing, unreadable or of a newer schema."""


class NewerSchemaError(FileError):
    """A file of ours of a newer schema."""


class GoldenError(HarnessError):
    """A golden's files do not match their recorded digests."""

    exit_code = EXIT_VERDICT


class InfrastructureError(HarnessError):
    """The machine, not the engine, is to blame."""

    exit_code = EXIT_INFRASTRUCTURE


class BugError(HarnessError):
    """The harness itself is wrong; the message names the file of the traceback."""

    exit_code = EXIT_BUG


_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files of the system (fs.file-max)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.ENOMEM: "use a machine with more memory, or close other programs",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EIO: "see what the system says of that disk",
}


def remedy_of(error: OSError) -> str:
    """Name the remedy for a system error, in a few words."""
    return _REMEDIES.get(error.errno or 0, "mend that")


def user_error(error: Exception) -> HarnessError | None:
    """Return an exception as one that a user may see, or ``None`` for a bug of the harness.

    Memory, disk or descriptors that run out are the machine's failure wherever they do.
    """
    if isinstance(error, HarnessError):
        return error
    if isinstance(error, MemoryError):
        return InfrastructureError("this process is out of memory; use a machine with more, or close other programs")
    if isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "start new thread" in str(error)):
        return InfrastructureError(f"no process or thread can be started; {_REMEDIES[errno.EAGAIN]}")
    if isinstance(error, OSError):
        name = error.filename2 or error.filename  # of a file that is renamed, that which it replaces
        place = f"{name}: " if name else ""
        if error.errno in EXHAUSTED:
            return InfrastructureError(f"{place}{error.strerror}; {remedy_of(error)}")
        if error.errno in UNUSABLE:
            return UsageError(f"{place}{error.strerror}; name another, or remove what is there")
    return None


def worst(codes: Iterable[int]) -> int:
    """Return the exit code that goes before the others: 70, then 2, 1, 3, any other, 0.

    >>> worst([3, 1, 0])
    1
    """
    order = (EXIT_OK, EXIT_INFRASTRUCTURE, EXIT_VERDICT, EXIT_USAGE, EXIT_BUG)
    return max(codes, key=lambda code: order.index(code) if code in order else 0.5)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """End of an error message: the closest known name, or all of them.

    >>> did_you_mean("spatal", ["spatial", "fake"])
    "did you mean 'spatial'?"
    """
    names = sorted(known)
    close = get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names) or 'none'}"
