"""Escaping of text for Markdown."""

from __future__ import annotations

import re


def escape(text: str) -> str:
    """Escape text for a table cell: no markup, no HTML, no mention, one line."""
    # backslashes first: the entities below hold a "#" of their own
    plain = re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
