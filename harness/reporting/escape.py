"""Escaping of text: for Markdown, and for a terminal."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that command a terminal or reorder a line, but for tabs and line breaks."""


def escape(text: str) -> str:
    """Escape text for a table cell: no markup, no HTML, no mention, one line."""
    # backslashes first: the entities below hold a "#" of their own
    plain = re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def printable(text: str) -> str:
    """Write characters that a terminal would obey as Python does; tabs and line breaks stay."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
