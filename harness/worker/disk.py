"""Write errors of a run's folder, told apart from errors of the engine."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RUST = re.compile(r"\(os error (\d+)\)")
"""Form of a system error in messages of libraries in Rust, such as safetensors; they raise no ``OSError``."""


class Unwritable(Exception):
    """A run's folder cannot be written.

    Parameters
    ----------
    folder
        The folder.
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
