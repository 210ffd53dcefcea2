"""The program that measures beside the ranks: a process forked from the same template, on a GPU of the run.

Orders come as JSON lines on standard input: what run folder and device, then each run that is over, then
that there will be no more. Every comparison goes to a descriptor of its own as soon as it is made; the
difference pictures that a report shows are drawn from the same samples, which are read once. Nothing depends
on this process: what it has not said is measured, and drawn, by whoever judges.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import codec
from harness.differences import SHOWN_IMAGES, DifferenceIndex, name_of, shown_pairs
from harness.differences.drawing import Differences, Picture
from harness.measure import EDGES, KEPT_BYTES, Measurer, Names
from harness.record import RunFolder
from harness.run_goldens import GoldensAhead
from harness.types import Comparison, Row, Run
from harness.worker import listen

PROCESS_NAME = "sp-measure"
NICENESS = 5
"""Ranks come first where processors are short."""
SHARE_OF_MEMORY = 8
"""At most this part of the machine's memory holds samples: those that later runs are compared with."""


@dataclass(frozen=True)
class StartOrder:
    """The first order: the run folder, and the GPU (its index) that may be used."""

    folder: str
    gpu: int | None = None


@dataclass(frozen=True)
class Order:
    """A run is over; none is named when all are."""

    digest: str = ""


class Ahead:
    """Measures each pair of runs as soon as both are there, and draws what is shown of a row when all its runs are.

    Parameters
    ----------
    folder
        The run folder.
    device
        GPU that metrics may use.
    reply
        Told of each comparison.
    """

    def __init__(self, folder: RunFolder, device: str | None, reply: Callable[..., None]) -> None:
        self._folder = folder
        self._reply = reply
        self._measurer = Measurer(folder, device, max(KEPT_BYTES, _memory_bytes() // SHARE_OF_MEMORY), self._measured)
        self._goldens = GoldensAhead(folder)
        self._known = DifferenceIndex.read(folder.path)
        self._pictures: dict[Path, tuple[str, int]] = {}
        self._differences = Differences(folder.path, self._known, self._picture)
        self._rows = [row for row in folder.plan.rows if row.runs]
        self._users = Counter(digest for row in self._rows for digest in set(row.runs.values()))
        self._pairs = {
            (row.runs[reference], row.runs[candidate]): relation
            for row in self._rows
            for relation, (reference, candidate) in EDGES.items()
            if candidate in row.runs
        }
        self._drawn: dict[str, Run] = {}

    def finished(self, digest: str) -> None:
        """Take note of a run; measure and draw what waited for it."""
        run = self._folder.run(digest)
        if run is None or run.failure is not None:
            return
        self._drawn[digest] = run
        self._measurer.add_run(run)
        self._pictures |= {
            self._folder.folder_of(run.spec) / name: (digest, index) for index, name in enumerate(run.images)
        }
        for pair in [pair for pair in self._pairs if self._drawn.keys() >= set(pair)]:
            self._measurer.measure(self._pairs.pop(pair), *pair)
        for row in [row for row in self._rows if self._drawn.keys() >= set(row.runs.values())]:
            self._rows.remove(row)
            self._complete(row)

    def over(self) -> dict[str, Any]:
        """Leave word of the difference pictures; what all of it has cost."""
        DifferenceIndex({**self._known.differences, **self._differences.known}).write(self._folder.path)
        return {
            "comparing_cpu_s": round(self._measurer.comparing_s, 3),
            "cpu_s": round(time.process_time(), 3),
            "samples_read": self._measurer.num_read,
        }

    def _complete(self, row: Row) -> None:
        """A row all of whose runs are there; samples that no other row waits for are let go."""
        self._goldens(row, self._drawn, self._measurer)
        for _, reference, candidate in shown_pairs(row):
            if reference in row.runs and candidate in row.runs and row.runs[reference] != row.runs[candidate]:
                self._draw(row, reference, candidate)
        self._reply(row=row.name)
        self._users -= Counter(set(row.runs.values()))
        for digest in set(row.runs.values()) - self._users.keys():
            self._measurer.let_go(digest)

    def _draw(self, row: Row, reference: str, candidate: str) -> None:
        sides = [self._drawn[row.runs[role]] for role in (reference, candidate)]
        for index in range(min(SHOWN_IMAGES, *(len(run.images) for run in sides))):
            first, second = (self._folder.folder_of(run.spec) / run.images[index] for run in sides)
            self._differences.draw(name_of(row, reference, candidate, index), first, second, row.plan)

    def _picture(self, path: Path) -> Picture | None:
        digest, index = self._pictures[path]
        images = self._measurer.sample(digest).images
        return images[index] if images else None

    def _measured(self, names: Names, comparison: Comparison) -> None:
        self._reply(names=names, comparison=codec.encode(comparison))


def main(descriptor: int) -> None:
    """Measure until there are no more runs; replies go to ``descriptor``."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this ends
    os.nice(NICENESS)
    replies = os.fdopen(descriptor, "w", encoding="utf-8")

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    orders = listen()
    start = codec.decode(StartOrder, orders.get())
    ahead = Ahead(RunFolder.open(Path(start.folder)), _device(start.gpu), reply)
    while digest := codec.decode(Order, orders.get()).digest:
        try:
            ahead.finished(digest)
        except Exception:  # whoever judges meets it again, and tells it where it is read
            traceback.print_exc()
    reply(over=ahead.over())


def _device(gpu: int | None) -> str | None:
    """The GPU as torch names it; none where torch would have to be imported for it, which costs more than it saves."""
    torch = sys.modules.get("torch")
    return f"cuda:{gpu}" if gpu is not None and torch is not None and torch.cuda.is_available() else None


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
