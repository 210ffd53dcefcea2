"""The program that measures beside the ranks: a process forked from the same forkserver, on a GPU of the run.

Orders come as JSON lines on standard input: the run folder, then each run that is over, and which GPU may be
used from then on, then that there will be no more. Every comparison goes to a descriptor of its own as soon as
it is made; the difference pictures that a report shows are drawn from the same samples, which are read once.
Nothing depends on this process: what it has not said is measured, and drawn, by whoever judges.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import queue
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import codec
from harness.execution.gpus import is_shareable
from harness.goldens.for_run import GoldensAhead, sample_key
from harness.judging.comparisons import EDGES, KEPT_BYTES, Measurer, Names
from harness.reporting.difference_images import Differences, Picture
from harness.reporting.difference_index import SHOWN_IMAGES, DifferenceIndex, name_of, shown_pairs
from harness.runs.folder import RunFolder
from harness.types import Comparison, Row, Run
from harness.worker.main import listen

PROCESS_NAME = "sp-measure"
NICENESS = 5
"""Ranks come first where processors are short."""
LAG_S = 2.0
"""How long after a GPU has been given back it may still be used: who takes it next is still loading then."""
SHARE_OF_MEMORY = 8
"""One part in this many of the memory may hold samples of earlier runs; never less than ``KEPT_BYTES``."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt(3)``."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""What ``mallopt`` takes at most on 64 bits; more than any metric writes of a picture of 2048 px a side."""
KEPT_FREE_BYTES = 1 << 30
"""Free memory that is not given back at once; the peak is no higher for it."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class StartOrder:
    """The first order: the run folder."""

    folder: str


@dataclass(frozen=True)
class Order:
    """A run is over; GPUs have been taken or given back, and ``gpu`` (its index) may be used or none; all are over."""

    what: Literal["finished", "device", "over"]
    digest: str = ""
    gpu: int | None = None


class Ahead:
    """Measures each pair of runs as soon as both are there, and draws what is shown of a row when all its runs are.

    Parameters
    ----------
    folder
        The run folder.
    reply
        Told of each comparison.
    """

    def __init__(self, folder: RunFolder, reply: Callable[..., None]) -> None:
        self._folder = folder
        self._reply = reply
        self._measurer = Measurer(folder, None, _kept_bytes(), self._measured)
        self._gpus: set[int] = set()
        self._goldens = GoldensAhead(folder)
        self._known = DifferenceIndex.read(folder.path)
        self._pictures: dict[Path, tuple[str, int]] = {}
        self._differences = Differences(folder.path, self._known, self._picture)
        self._rows = [row for row in folder.plan.rows if row.runs]
        self._users = Counter(key for row in self._rows for key in _samples_of(row))
        self._pairs = {
            (row.runs[reference], row.runs[candidate]): relation
            for row in self._rows
            for relation, (reference, candidate) in EDGES.items()
            if candidate in row.runs
        }
        self._drawn: dict[str, Run] = {}
        self._over: set[str] = set()
        """Drawn or failed."""

    def use(self, gpu: int | None) -> None:
        """Let metrics use a GPU from now on; with none, memory that was kept for the next picture is given back."""
        self._measurer.device = _device(gpu)
        if self._measurer.device is not None and gpu is not None:
            self._gpus.add(gpu)
        elif self._gpus:
            with _told():
                sys.modules["torch"].cuda.empty_cache()

    def finished(self, digest: str) -> None:
        """Take note of a run; measure and draw what waited for it."""
        run = self._folder.run(digest)
        if run is None:
            return
        self._over.add(digest)
        if run.failure is None:
            self._drawn[digest] = run
            self._measurer.add_run(run)
            self._pictures |= {
                self._folder.folder_of(run.spec) / name: (digest, index) for index, name in enumerate(run.images)
            }
        for pair in [pair for pair in self._pairs if self._drawn.keys() >= set(pair)]:
            with _told():
                self._measurer.measure(self._pairs.pop(pair), *pair)
        for row in [row for row in self._rows if self._over >= set(row.runs.values())]:
            self._rows.remove(row)
            with _told():
                self._complete(row)
            self._release(row)

    def over(self) -> dict[str, Any]:
        """Leave word of the difference pictures; what all of it has cost."""
        DifferenceIndex({**self._known.differences, **self._differences.known}).write(self._folder.path)
        return {
            "gpus": sorted(self._gpus),
            "comparing_cpu_s": round(self._measurer.comparing_s, 3),
            "cpu_s": round(time.process_time(), 3),
            "samples_read": self._measurer.num_read,
        }

    def _complete(self, row: Row) -> None:
        """What else there is to do for a row all of whose runs are over."""
        if self._drawn.keys() >= set(row.runs.values()):
            self._goldens(row, self._drawn, self._measurer)
        for _, reference, candidate in shown_pairs(row):
            sides = [row.runs.get(role) for role in (reference, candidate)]
            if len(set(sides)) == 2 and self._drawn.keys() >= set(sides):
                self._draw(row, reference, candidate)
        self._reply(row=row.name)

    def _release(self, row: Row) -> None:
        """Let go of samples that no other row waits for."""
        self._users -= Counter(_samples_of(row))
        for key in _samples_of(row) - self._users.keys():
            self._measurer.let_go(key)

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
    _keep_freed_memory()
    replies = os.fdopen(descriptor, "w", encoding="utf-8")

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    lines = listen()
    ahead = Ahead(RunFolder.open(Path(codec.decode(StartOrder, json.loads(lines.get())).folder)), reply)
    orders = Orders(lines, ahead.use)
    while (order := orders.next()).what != "over":
        with _told():
            ahead.finished(order.digest)
    reply(over=ahead.over())


class Orders:
    """Orders in their turn, but for those about GPUs: one that is the run's may be used at once.

    One that is given back is used for what was handed over before that, and for :data:`LAG_S` at most: the end of
    a batch would otherwise be compared on the processor.

    Parameters
    ----------
    lines
        Orders as they come.
    use
        Told of the GPU to use, or of none.
    """

    def __init__(self, lines: queue.SimpleQueue[str], use: Callable[[int | None], None]) -> None:
        self._lines = lines
        self._use = use
        self._waiting: deque[Order] = deque()
        self._given_back: float | None = None

    def next(self) -> Order:
        """Wait for the next order that is not about GPUs."""
        while True:
            while not self._lines.empty():
                self._take(codec.decode(Order, json.loads(self._lines.get())))
            if self._given_back is not None and time.monotonic() - self._given_back > LAG_S:
                self._give_back()
            if not self._waiting:
                self._take(codec.decode(Order, json.loads(self._lines.get())))
            elif (order := self._waiting.popleft()).what != "device":
                return order
            else:
                self._give_back()

    def _take(self, order: Order) -> None:
        if order.what != "device":
            self._waiting.append(order)
        elif order.gpu is None:
            self._given_back = time.monotonic()
            self._waiting.append(order)
        else:
            self._give_back()
            self._use(order.gpu)

    def _give_back(self) -> None:
        """Use no GPU any more, if one has been given back and that is not done yet."""
        if self._given_back is not None:
            self._given_back = None
            self._use(None)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Print what goes wrong, and go on: whoever judges meets it again, and tells it where it is read."""
    try:
        yield
    except Exception:
        traceback.print_exc()


def _samples_of(row: Row) -> set[str]:
    return {*row.runs.values(), sample_key(row.case)}


def _device(gpu: int | None) -> str | None:
    """The GPU as torch names it; none where torch would have to be imported for it, which costs more than it saves."""
    torch = sys.modules.get("torch")
    if gpu is None or torch is None or not torch.cuda.is_available() or not is_shareable(gpu):
        return None
    return f"cuda:{gpu}"


def _keep_freed_memory() -> None:
    """Let the C library keep what pictures leave behind: to get memory anew costs as much as measuring in it."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's has no such call
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def _kept_bytes() -> int:
    """What samples may take: of the memory of the machine, or of the container this runs in."""
    found = []
    with contextlib.suppress(OSError, ValueError):  # not every system tells
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        found.append(int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return max(KEPT_BYTES, min(found, default=0) // SHARE_OF_MEMORY)
