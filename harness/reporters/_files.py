"""Writing a report's files."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Write a text file so that a reader sees the old one or the whole new one, never half of it.

    What is no valid Unicode (a lone surrogate in a prompt) is written as a question mark.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    temporary.replace(path)
    return path
