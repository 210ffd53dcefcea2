"""Waiting for other processes, without a fixed pause."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 60.0
"""That of a machine in trouble."""


def until(condition: Callable[[], bool]) -> bool:
    """Wait for something that must come; whether it came."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
