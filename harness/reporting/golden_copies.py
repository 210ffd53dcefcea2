"""Names of the copies of approved pictures in a report's folder, which stands alone with them."""

from __future__ import annotations

import re

from harness.types import Case

FOLDER = "golden"


def slug(text: str) -> str:
    """Make a file name or an address of any text."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


def stem_of(case: Case, index: int) -> str:
    """Return the name of a copy without its ending; pictures of a batch are numbered from the second on."""
    return f"{slug(case.key)}-{index}" if index else slug(case.key)
