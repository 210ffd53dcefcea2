"""Measuring while pictures are still being drawn: the parent's side of :mod:`harness.ahead_process`.

The process is forked from the template of the ranks once the first run is over, so that nothing has to be
imported for it, and metrics may use a GPU that the run holds. It only saves time: where it ends early, is
killed or falls silent, what it has not said is measured by whoever asks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from harness import codec
from harness.measure import Measurer, Names
from harness.rank import ForkedRank
from harness.record import MEASURED, RunFolder
from harness.types import Comparison, Run

PROGRAM = "harness.ahead_process"
LOG = "measure.log"
SILENT_AT_MOST_S = 120.0
"""The largest comparisons take seconds: a process that says nothing for so long waits for what never comes."""


class AheadMeasurer:
    """Has runs of a folder measured as soon as they are there, and what a report shows of them drawn."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._waiting = list(folder.runs().values())
        self._gpu: int | None = None
        self._process: ForkedRank | None = None
        self._reader: threading.Thread | None = None
        self._heard = time.monotonic()
        self._learnt: list[tuple[Names, Comparison]] = []
        self._cost: dict[str, Any] | None = None
        self._measurer: Measurer | None = None

    def holding(self, devices: Sequence[int]) -> None:
        """Take note of the GPUs that the run holds; the first one counts that is held when the process starts."""
        if devices:
            self._gpu = devices[0]

    def finished(self, run: Run) -> None:
        """Hand over a run that is over."""
        self._waiting.append(run)
        if self._process is None and self._measurer is None:
            self._start()
        self._hand_over()

    def wait(self) -> Measurer:
        """Wait for what was begun and return a measurer that knows it."""
        if self._measurer is None:
            self._measurer = Measurer(self._folder)
            self._finish()
            for names, comparison in self._learnt:
                self._measurer.learn(names, comparison)
        return self._measurer

    def abandon(self) -> None:
        """Measure nothing more; what was not waited for is lost."""
        if self._process:
            self._process.kill()
            if self._reader:
                self._reader.join()
            self._process.close()
            self._process = None

    def _start(self) -> None:
        logs = self._folder.path / "logs"
        with contextlib.suppress(OSError):  # no descriptor or no room is left: this is done without
            logs.mkdir(parents=True, exist_ok=True)
            self._process = ForkedRank(logs / LOG, (), program=PROGRAM)
            self._process.write({"folder": str(self._folder.path.absolute()), "gpu": self._gpu})
            self._heard = time.monotonic()
            self._reader = threading.Thread(target=self._listen, args=(self._process,), name="measured", daemon=True)
            self._reader.start()

    def _hand_over(self) -> None:
        if self._process:
            for run in self._waiting:
                self._process.write({"digest": run.spec.digest})
            self._waiting.clear()

    def _listen(self, process: ForkedRank) -> None:
        while (replies := process.read()) is not None:
            self._heard = time.monotonic()
            for reply in replies:
                if "over" in reply:
                    self._cost = reply["over"]
                elif "comparison" in reply:
                    reference, candidate = reply["names"]
                    self._learnt.append(
                        ((tuple(reference), tuple(candidate)), codec.decode(Comparison, reply["comparison"]))
                    )

    def _finish(self) -> None:
        """Wait until the process has said all it has to say, or will say no more."""
        if self._process is None or self._reader is None:
            return
        self._process.write({})
        asked = time.monotonic()
        while self._reader.is_alive() and time.monotonic() - max(self._heard, asked) < SILENT_AT_MOST_S:
            self._reader.join(timeout=1.0)
        self.abandon()
        if self._cost is not None:
            self._folder.note(MEASURED, gpu=self._gpu, comparisons=len(self._learnt), **self._cost)
