"""Scratch folders, which the next process finds and removes where their own was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELD = ".held"
"""File of a scratch folder that its process holds locked: the kernel frees it when that ends, however it does."""


class Scratch:
    """New folder for the time of this process; remove it with :meth:`remove`.

    Folders beside it of the same prefix, of this user, whose process has ended are removed first.

    Parameters
    ----------
    prefix
        Beginning of its name.
    parent
        Its parent; the system's temporary folder by default.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        place = parent or Path(tempfile.gettempdir())
        _sweep(place, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            self._held = os.open(self.path / HELD, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX)
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


@contextmanager
def scratch(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Provide a :class:`Scratch` folder, which is removed at the end of the context."""
    made = Scratch(prefix, parent)
    try:
        yield made.path
    finally:
        made.remove()


def _sweep(place: Path, prefix: str) -> None:
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another user's, just made, just removed, or held
            descriptor = os.open(folder / HELD, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)
