"""Whether memory ran out, told from what was raised or printed: libraries say it in words of their own."""

from __future__ import annotations

WORDS = (
    "out of memory",  # CUDA, through torch and NCCL
    "cannot allocate memory",  # the system, and the loader of shared libraries
    "can't allocate memory",  # torch's allocator on the CPU
    "status_alloc_failed",  # cuBLAS, cuDNN
    "bad_alloc",  # C++
)

_LAST_LINES = 8
"""The longest that is printed after such words: torch's advice on errors of CUDA, without its frames."""


def raised_by(error: BaseException) -> bool:
    """Whether an exception says so, or one that led to it: engines wrap what they meet."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, RuntimeError | OSError) and told_in(str(error)):
        return True
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return earlier is not None and raised_by(earlier)


def told_in(text: str) -> bool:
    """Whether an error message says so."""
    text = text.lower()
    return any(words in text for words in WORDS) or "\nmemoryerror" in text


def told_by_nccl(message: str, printed: str) -> str:
    """The line in which NCCL says so; empty if it does not.

    Some of torch's calls raise "NCCL Error 1: unhandled cuda error" alone. Which error that was, NCCL prints.
    """
    if "nccl" not in message.lower():
        return ""
    lines = [line.strip() for line in printed.splitlines() if "NCCL WARN" in line and told_in(line)]
    return lines[-1] if lines else ""


def told_last_in(printed: str) -> bool:
    """Whether what a process printed just before it crashed says so; what it met earlier and survived does not.

    Left out are the stacks that Python prints as it crashes, and the frames of libraries.
    """
    before, dump, _ = printed.rpartition("Fatal Python error: ")
    lines = [line for line in (before if dump else printed).splitlines() if line.strip()]
    words = [line for line in lines if not line.lstrip().startswith("frame #")]
    return told_in("\n" + "\n".join(words[-_LAST_LINES:]))
