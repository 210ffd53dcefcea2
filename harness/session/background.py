"""Measuring while pictures are still being drawn: the parent's side of :mod:`harness.session.background_process`.

The process is forked from the forkserver of the ranks once the first run is over, so that nothing has to be
imported for it, and metrics may use a GPU that the run holds. It only saves time: where it ends early, is
killed or falls silent, what it has not said is measured by whoever asks.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness import codec
from harness.execution.events import Event, Finished, Holding
from harness.execution.rank import ForkedRank
from harness.judging.comparisons import Measurer, Names
from harness.runs.folder import MEASURED, RunFolder
from harness.types import Comparison, Run

PROGRAM = "harness.session.background_process"
LOG = "measure.log"
POLL_S = 0.25
END_S = 5.0
"""A process that is killed ends at once; one that is not forked yet, when the forkserver has imported its program."""
SILENT_AT_MOST_S = 120.0
"""The largest comparisons take seconds: a process that says nothing for so long waits for what never comes."""


class AheadMeasurer:
    """Has runs of a folder measured as soon as they are there, and what a report shows of them drawn."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        again = {spec.digest for spec in folder.missing()}  # what failed for want of a machine is drawn once more
        self._orders = [_finished(run) for digest, run in folder.runs().items() if digest not in again]
        self._gpu: int | None = None
        self._process: ForkedRank | None = None
        self._reader = threading.Thread()
        self._is_late = threading.Event()
        self._heard = time.monotonic()
        self._learnt: list[tuple[Names, Comparison]] = []
        self._cost: dict[str, Any] | None = None
        self._measurer: Measurer | None = None

    def on_event(self, event: Event) -> None:
        """Take note of runs that are over, and of GPUs that the run holds from now on."""
        if isinstance(event, Finished):
            self.finished(event.run)
        elif isinstance(event, Holding):
            self.holding(event.devices)

    def holding(self, devices: Sequence[int]) -> None:
        """Take note of the GPUs that the run holds from now on: metrics may use one of them, and no other."""
        gpu = self._gpu if self._gpu in devices else next(iter(devices), None)
        if gpu != self._gpu:
            self._gpu = gpu
            self._orders.append({"what": "device", "gpu": gpu})
            self._hand_over()

    def finished(self, run: Run) -> None:
        """Hand over a run that is over."""
        self._orders.append(_finished(run))
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
        process, self._process = self._process, None
        if process:
            process.hang_up()
            process.kill()
            self._reader.join(END_S)
            if self._reader.is_alive():  # not forked yet: it ends when it is, and its pipes are closed then
                self._is_late.set()
            else:
                process.close()

    def _start(self) -> None:
        logs = self._folder.path / "logs"
        with contextlib.suppress(OSError):  # no descriptor or no room is left: this is done without
            logs.mkdir(parents=True, exist_ok=True)
            process = ForkedRank(logs / LOG, (), program=PROGRAM)
            process.write(_line({"folder": str(self._folder.path.absolute())}))
            reader = threading.Thread(target=self._listen, args=(process,), name="measured", daemon=True)
            try:
                reader.start()
            except RuntimeError:  # nor a thread
                process.close()
                return
            self._process, self._reader, self._heard = process, reader, time.monotonic()

    def _hand_over(self) -> None:
        """Give what orders there is room for: a process that takes none makes nobody wait."""
        while self._process and self._orders and self._process.offer(_line(self._orders[0])):
            self._orders.pop(0)

    def _listen(self, process: ForkedRank) -> None:
        """Take what the process says until it ends."""
        while (lines := process.read_lines()) is not None:
            self._heard = time.monotonic()
            for reply in map(json.loads, lines):
                if "over" in reply:
                    self._cost = reply["over"]
                elif "comparison" in reply:
                    (reference, candidate), comparison = reply["names"], codec.decode(Comparison, reply["comparison"])
                    self._learnt.append(((tuple(reference), tuple(candidate)), comparison))
        if self._is_late.is_set():
            process.close()

    def _finish(self) -> None:
        """Wait until the process has said all it has to say, or will say no more."""
        if self._process is None:
            return
        self._orders.append({"what": "over"})
        asked = time.monotonic()
        while self._reader.is_alive() and time.monotonic() - max(self._heard, asked) < SILENT_AT_MOST_S:
            self._hand_over()
            self._reader.join(POLL_S)
        self.abandon()
        if self._cost is not None:
            self._folder.note(MEASURED, comparisons=len(self._learnt), **self._cost)


def _finished(run: Run) -> dict[str, object]:
    return {"what": "finished", "digest": run.spec.digest}


def _line(order: Mapping[str, object]) -> bytes:
    return json.dumps(order).encode() + b"\n"
