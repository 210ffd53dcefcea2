"""Time limit of replies, in which time that did not pass for this process or for the ranks does not count."""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.execution.rank import Rank

LOOK_S = 0.25
"""Interval at which a wait for replies is looked at."""
LONGEST_LOOK_S = 1.0
"""Counted of one look at most: a machine under load delays this process so far, and a signal stops it for longer."""


class TimeLimit:
    """Seconds in which ranks ran and did not answer, held to a limit.

    Time is counted look by look, while this process runs: a process that was stopped and continued cannot tell from
    a clock how long its ranks had. A rank found stopped at a look has its seconds counted apart, and from the
    beginning each time it is stopped anew.

    Parameters
    ----------
    limit_s
        The limit, of running and of stopped ranks.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ran_s = self._stopped_s = 0.0
        self._last_look = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds until the limit, if ranks run."""
        return max(0.0, self._limit_s - self._ran_s)

    def is_over(self, awaited: Sequence[Rank]) -> bool:
        """Count the time since the last look, and tell whether the limit is reached.

        Parameters
        ----------
        awaited
            Ranks that have not answered. Those on other nodes cost a message each, and are looked at only when the
            limit is reached (:func:`harness.execution.failures.hung`).
        """
        passed = time.monotonic() - self._last_look
        if passed >= min(LOOK_S, self.left_s):
            self._last_look += passed
            counted = min(passed, LONGEST_LOOK_S)
            if any(rank.stopped() for rank in awaited if not rank.node):
                self._stopped_s += counted
            else:
                self._ran_s, self._stopped_s = self._ran_s + counted, 0.0
        return max(self._ran_s, self._stopped_s) >= self._limit_s
