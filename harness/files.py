"""Atomic writes: a reader sees the old file or folder, or the whole new one, never a part of it."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError, UsageError

TEMPORARY = ".*.*." + "[0-9a-f]" * 8
"""Shell pattern of the temporary names of files that are replaced."""


def write_text(path: Path, text: str, mode: int | None = None, durable: bool = False) -> Path:
    """Replace a file by UTF-8 text, and return its path; see :func:`write_bytes`.

    What is no valid Unicode, such as a lone surrogate in a prompt, becomes a question mark.
    """
    return write_bytes(path, text.encode("utf-8", "replace"), mode, durable)


def write_bytes(path: Path, content: bytes, mode: int | None = None, durable: bool = False) -> Path:
    """Replace a file, and return its path.

    Parameters
    ----------
    path
        The file; missing folders are created.
    content
        Its bytes.
    mode
        Permissions; those of the umask by default.
    durable
        Return only once it is on disk, so that it is there even after the machine goes down: for what cannot be
        made again from other files.

    Raises
    ------
    OSError
        Naming the file, which is unchanged then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path), temporary.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_entry(path)
    return path


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folder
            raise
    finally:
        os.close(descriptor)


def sync_entry(path: Path) -> None:
    """Flush to disk that a path is there: its entry, and that of its folder, which may be new too."""
    sync(path.parent)
    sync(path.parent.parent)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Fill an empty folder, which replaces ``folder`` at the end of the context.

    After an error ``folder`` is unchanged, and what was written is removed. One process at a time may do this. At the
    end all of it is on disk.

    Yields
    ------
    Path
        Hidden folder beside ``folder``.
    """
    begin(folder)
    try:
        yield building(folder)
        finish(folder)
    except BaseException:
        shutil.rmtree(building(folder), ignore_errors=True)
        raise


def building(folder: Path) -> Path:
    """Name the hidden folder in which ``folder`` is built."""
    return folder.with_name(f".{folder.name}.building")


def begin(folder: Path) -> Path:
    """Create the folder of :func:`building`, without what a crash may have left there."""
    shutil.rmtree(building(folder), ignore_errors=True)
    building(folder).mkdir(parents=True)
    return building(folder)


def finish(folder: Path) -> None:
    """Replace ``folder`` by that of :func:`building`, once its files are on disk."""
    for path in (*building(folder).rglob("*"), building(folder)):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    building(folder).replace(folder)
    sync_entry(folder)


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Name a place in system errors that name none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(place)
        raise


@contextmanager
def writing(place: Path | str, remedy: str, kind: type[HarnessError] = UsageError) -> Iterator[None]:
    """Turn system errors inside the context into ``PLACE: cannot be written (REASON); REMEDY``.

    Raises
    ------
    HarnessError
        Of ``kind``.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{place}: cannot be written ({error.strerror or error}); {remedy}") from None
