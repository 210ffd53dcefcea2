"""Bugs of the harness: the traceback goes to a file, and one line names it."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from harness import __version__
from harness.errors import BugError

SHOWN_AT_MOST = 200
"""Characters of an exception's message in the line about it."""


def keep(error: Exception, logs: Path | None = None) -> BugError:
    """Write the traceback of an exception, and return the error that names the file.

    Parameters
    ----------
    error
        An exception that nothing is expected to raise.
    logs
        Folder for the file; the system's temporary folder by default, and where ``logs`` cannot be written.
    """
    head = f"sp-harness {__version__}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv}\n\n"
    text = head + "".join(traceback.format_exception(error))
    message = " ".join(str(error).split())
    shown = message if message.isprintable() else ascii(message)
    return BugError(
        f"this is a bug of sp-harness, neither a verdict nor a mistake of yours ({type(error).__name__}: "
        f"{shown[:SHOWN_AT_MOST]}); please report it with its traceback, which is in {_write(text, logs)}"
    )


def _write(text: str, logs: Path | None) -> str:
    for folder in (logs, Path(tempfile.gettempdir())):
        with suppress(OSError):
            if folder is not None:
                return _write_new(text, folder)
    return f"no file, as none can be written:\n{text}"


def _write_new(text: str, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=folder, prefix="sp-harness-bug-", suffix=".txt", delete=False) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return file.name
