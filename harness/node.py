"""A node that has joined, as the head sees it."""

from __future__ import annotations

from harness.wire import Line


class Node:
    """A node that has joined.

    Parameters
    ----------
    name
        What the machine calls itself.
    num_ranks
        Ranks that fit on it.
    line
        The line to it.
    """

    def __init__(self, name: str, num_ranks: int, line: Line) -> None:
        self.name = name
        self.num_ranks = num_ranks
        self.line = line
