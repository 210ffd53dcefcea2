"""A node that has joined, as the head sees it: what it was asked to hold for a group, and what became of that."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from typing import Any

from harness.execution.rank import StartFailed
from harness.execution.reservation import Need
from harness.execution.wire import Line

POLL_S = 0.25
LOST = "it was lost"


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
    changed
        Notified of what is heard of it.
    """

    def __init__(self, name: str, num_ranks: int, line: Line, changed: threading.Condition) -> None:
        self.name = name
        self.num_ranks = num_ranks
        self.line = line
        self._changed = changed
        self._numbers = itertools.count(1)
        self._hold: _Hold | None = None
        self._is_lost = False

    def hold(self, need: Need, num_ranks: int, wanted: Callable[[], bool] = lambda: True) -> Generator[str, None, None]:
        """Have it check what a group needs, and hold GPUs for that alone; yields, while it waits, for whom.

        What stands in the way for good is the :attr:`problem`.

        Parameters
        ----------
        need
            What the group needs.
        num_ranks
            Its ranks on this node.
        wanted
            Asked now and then; ``False`` gives up.
        """
        self.release()
        hold = _Hold(next(self._numbers), need, num_ranks)
        with self._changed:
            self._hold = hold
            hold.problem = LOST if self._is_lost else ""
        try:
            self._send({"hold": hold.number, "need": asdict(need), "num_ranks": num_ranks})
            while not hold.is_settled and wanted():
                with self._changed:
                    self._changed.wait_for(lambda: hold.news or hold.is_settled, POLL_S)
                    news, hold.news = hold.news, []
                yield from news
        finally:
            if not hold.is_settled:  # who asked has gone
                self.release()

    def ensure(self, need: Need, num_ranks: int, wanted: Callable[[], bool]) -> None:
        """See that it holds what a group needs; if it was not asked yet, as it came later, without waiting for others.

        Raises
        ------
        StartFailed
            If it does not, and why.
        """
        if not (self._hold and self._hold.is_for(need, num_ranks)):
            with contextlib.closing(self.hold(need, num_ranks, wanted)) as waiting:
                for message in waiting:
                    raise StartFailed(message)
        if self._hold is None:
            raise StartFailed("no longer wanted")
        if self.problem:
            raise StartFailed(self.problem)

    @property
    def problem(self) -> str:
        """Why it cannot do what it was asked last; empty where it can."""
        return f"node {self.name}: {self._hold.problem}" if self._hold and self._hold.problem else ""

    def release(self) -> None:
        """Let it give back what it holds."""
        with self._changed:
            hold, self._hold = self._hold, None
        if hold:
            self._send({"release": hold.number})

    def device_of(self, place: int) -> int:
        """GPU held for the rank at a place."""
        return self._hold.devices[place] if self._hold and self._hold.devices else place

    @property
    def model_path(self) -> str:
        """Where the checkpoint that is held for lies there."""
        return self._hold.model_path if self._hold else ""

    def heard(self, message: Mapping[str, Any]) -> None:
        """Take note of what it says of a hold."""
        with self._changed:
            hold = self._hold
            if hold and hold.number == message["hold"]:
                hold.take(self.name, message)
                self._changed.notify_all()

    def lose(self) -> None:
        """Take note that it is gone."""
        with self._changed:
            self._is_lost = True
            if self._hold:
                self._hold.problem = LOST
            self._changed.notify_all()

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # who listens to it notices that it is gone
            self.line.send(message)


class _Hold:
    """What a node was asked to hold, and what it answered."""

    def __init__(self, number: int, need: Need, num_ranks: int) -> None:
        self.number = number
        self.need = need
        self.num_ranks = num_ranks
        self.news: list[str] = []
        """For whom it waits, not told yet."""
        self.problem = ""
        self.model_path = ""
        self.devices: tuple[int, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be waited for."""
        return bool(self.problem or self.devices)

    def is_for(self, need: Need, num_ranks: int) -> bool:
        """Whether the question was that of a group."""
        return self.need == need and self.num_ranks >= num_ranks

    def take(self, name: str, message: Mapping[str, Any]) -> None:
        """Take an answer."""
        if "waiting" in message:
            self.news.append(f"node {name}: {message['waiting']}")
        elif "unfit" in message:
            self.problem = message["unfit"]
        else:
            self.model_path, self.devices = message["model_path"], tuple(message["held"])
