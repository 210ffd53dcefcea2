"""A run's folder as a rank writes it: that it cannot be written is a disk's fault, never the engine's."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, safetensors among them, tell an error of the system; they raise no ``OSError``."""


class Unwritable(Exception):
    """What a rank leaves cannot be written.

    Parameters
    ----------
    folder
        Where.
    number
        The system's error, such as ``errno.ENOSPC``.
    """

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(f"{folder}: cannot be written ({os.strerror(number)})")
        self.folder = folder
        self.number = number


def errno_of(error: BaseException) -> int | None:
    """Number of the system's error behind an exception; ``None`` where it is not the system that refuses."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = _RUST.search(str(error))
    return int(told[1]) if told else None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write files of a run inside the context, and nothing else.

    Raises
    ------
    Unwritable
        If the system refuses. What is wrong with the data itself is raised as it is, and so is want of memory.
    """
    try:
        yield
    except Exception as error:
        number = errno_of(error)
        if number is None or number == errno.ENOMEM:  # which is a failure of its own: see harness.worker.exhaustion
            raise
        raise Unwritable(folder, number) from error
