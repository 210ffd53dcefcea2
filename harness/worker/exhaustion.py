"""Classification of exceptions and output by what ran out: memory, disk space, descriptors, processes."""

from __future__ import annotations

import errno

from harness.types import FailureKind
from harness.worker.disk import errno_of

WORDS = {
    FailureKind.OUT_OF_MEMORY: (
        "out of memory",  # CUDA, through torch and NCCL
        "cannot allocate memory",  # the system, and the loader of shared libraries
        "can't allocate memory",  # torch's allocator on the CPU
        "status_alloc_failed",  # cuBLAS, cuDNN
        "bad_alloc",  # C++
        "\nmemoryerror",  # Python, at the end of a traceback
    ),
    FailureKind.DISK_FULL: (
        "no space left on device",  # the system; NCCL prints it of shared memory
        "disk quota exceeded",
    ),
    FailureKind.EXHAUSTED: (
        "too many open files",
        "can't start new thread",  # Python
        "thread creation failed",  # OpenMP
        "pthread_create failed",
        "fork: resource temporarily unavailable",  # shells
        "fork: retry: resource temporarily unavailable",
    ),
}

_LAST_LINES = 8
"""The longest that is printed after such words: torch's advice on errors of CUDA, without its frames."""


def raised_by(error: BaseException) -> FailureKind | None:
    """Classify an exception, or one that led to it: engines wrap what they catch."""
    number = errno_of(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or number == errno.ENOMEM:
        return FailureKind.OUT_OF_MEMORY
    if number in (errno.ENOSPC, errno.EDQUOT):
        return FailureKind.DISK_FULL
    if number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN):  # the last as a process is started
        return FailureKind.EXHAUSTED
    if isinstance(error, RuntimeError | OSError) and (kind := told_in(str(error))):
        return kind
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return raised_by(earlier) if earlier is not None else None


def told_in(text: str) -> FailureKind | None:
    """Classify an error message."""
    text = text.lower()
    return next((kind for kind, words in WORDS.items() if any(each in text for each in words)), None)


def told_by_nccl(message: str, printed: str) -> tuple[FailureKind, str] | None:
    """Classify an NCCL error by what NCCL printed; returns the line as well.

    Some of torch's calls raise "NCCL Error 1: unhandled cuda error" alone. Which error that was, NCCL prints.
    """
    if "nccl" not in message.lower():
        return None
    lines = [line.strip() for line in printed.splitlines() if "NCCL WARN" in line]
    return next(((kind, line) for line in reversed(lines) if (kind := told_in(line))), None)


def told_last_in(printed: str) -> FailureKind | None:
    """Classify a crash by the last lines that the process printed; earlier errors, which it survived, are left out.

    So are the stacks that Python prints as it crashes, and the frames of libraries.
    """
    before, dump, _ = printed.rpartition("Fatal Python error: ")
    lines = [line for line in (before if dump else printed).splitlines() if line.strip()]
    words = [line for line in lines if not line.lstrip().startswith("frame #")]
    return told_in("\n" + "\n".join(words[-_LAST_LINES:]))
