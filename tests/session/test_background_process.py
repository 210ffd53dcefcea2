"""What is measured and drawn beside the ranks: all that a report asks for, each sample read once, and none kept."""

from __future__ import annotations

import ctypes
import gc
import os
import queue
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import codec
from harness.goldens import golden
from harness.judging import comparisons
from harness.judging.comparisons import Measurer, Names
from harness.reporting import difference_images
from harness.reporting.difference_index import DifferenceIndex
from harness.runs.folder import RunFolder
from harness.runs.sample import Sample
from harness.session import background_process, steps
from harness.session.background_process import Ahead, Orders
from harness.types import Comparison, Relation


class Told:
    """What an :class:`Ahead` says, as it arrives: through JSON."""

    def __init__(self) -> None:
        self.comparisons: list[tuple[Names, Comparison]] = []
        self.rows: list[str] = []

    def __call__(self, **reply: Any) -> None:
        if "row" in reply:
            self.rows.append(reply["row"])
        else:
            self.comparisons.append((reply["names"], codec.decode(Comparison, reply["comparison"])))

    def measurer(self, folder: RunFolder) -> Measurer:
        learner = Measurer(folder)
        for names, comparison in self.comparisons:
            learner.learn(names, comparison)
        return learner


def ahead_of(folder: RunFolder) -> tuple[Told, dict[str, Any]]:
    """Hand all runs over, in the order of the plan."""
    told = Told()
    ahead = Ahead(folder, told)
    for digest in folder.plan.specs:
        ahead.finished(digest)
    return told, ahead.over()


def with_a_failure(bench: Any) -> tuple[RunFolder, str]:
    """A folder in which everything is over and one run has failed, and that run's digest."""
    folder = bench.plan(golden="off")
    first, *others = folder.plan.specs.values()
    bench.draw(folder, others)
    bench.fail(folder, first)
    return folder, first.digest


def test_all_that_is_judged_is_measured_and_all_that_is_shown_is_drawn(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.approved()
    folder = bench.drawn()
    expected = steps.conclude(folder)
    steps.write_reports(expected, folder.path)
    drawn = {path.name: path.read_bytes() for path in (folder.path / "diffs").iterdir()}
    assert len([name for name in drawn if name.endswith(".jpg")]) >= 3

    fresh = bench.drawn()
    told, cost = ahead_of(fresh)
    assert sorted(told.rows) == sorted(row.name for row in fresh.plan.rows)
    assert cost["samples_read"] == len(fresh.plan.specs) + len(fresh.plan.matrix.cases)  # and a golden for each case
    assert cost["comparing_cpu_s"] > 0
    monkeypatch.setattr(RunFolder, "sample", None)
    monkeypatch.setattr(difference_images, "load_picture", None)
    report = steps.conclude(fresh, told.measurer(fresh))
    steps.write_reports(report, fresh.path)
    assert report.rows == expected.rows
    assert {relation for row in report.rows for relation in [each.relation for each in row.comparisons]} >= {
        Relation.EXCHANGE,
        Relation.GOLDEN_CANDIDATE,
    }
    pictures = {path.name: path.read_bytes() for path in (fresh.path / "diffs").glob("*.jpg")}
    assert pictures == {name: content for name, content in drawn.items() if name.endswith(".jpg")}
    page, original = ((each.path / "h.html").read_text().count("diffs/") for each in (fresh, folder))
    assert page == original > 0


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How many samples, of runs and of goldens, were read, and how many of them are still in memory."""
    pictures: list[weakref.ref[Any]] = []

    def watched(load: Callable[..., Sample]) -> Callable[..., Sample]:
        def loaded(*arguments: Any) -> Sample:
            found = load(*arguments)
            copies = tuple(np.array(image) for image in found.images or ())
            pictures.extend(map(weakref.ref, copies))
            return replace(found, images=copies)

        return loaded

    def count() -> tuple[int, int]:
        gc.collect()
        return len(pictures), sum(picture() is not None for picture in pictures)

    monkeypatch.setattr(RunFolder, "sample", watched(RunFolder.sample))
    monkeypatch.setattr(golden, "load_sample", watched(golden.load_sample))
    return count


def test_samples_that_nothing_waits_for_are_let_go(bench: Any, alive: Callable[[], tuple[int, int]]) -> None:
    bench.approved()
    folder = bench.drawn()
    before, _ = alive()
    ahead = Ahead(folder, Told())
    for digest in folder.plan.specs:
        ahead.finished(digest)
    after, kept = alive()
    assert (after - before, kept) == (len(folder.plan.specs) + len(folder.plan.matrix.cases), 0)


def test_neither_does_a_failed_run_keep_them_nor_a_full_disk(
    bench: Any, alive: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(difference_images, "write_jpeg", full)
    told, _ = ahead_of(with_a_failure(bench)[0])
    _, kept = alive()
    assert kept == 0
    assert "No space left on device" in capfd.readouterr().err
    assert told.comparisons


def test_a_run_told_twice_or_unknown_or_failed_does_no_harm(bench: Any) -> None:
    folder, failed = with_a_failure(bench)
    told = Told()
    ahead = Ahead(folder, told)
    for digest in ("no such run", *folder.plan.specs, *folder.plan.specs):
        ahead.finished(digest)
    assert sorted(told.rows) == sorted(row.name for row in folder.plan.rows)
    names = [names for names, _ in told.comparisons]
    assert names
    assert not [each for each in names if failed in dict(each)]


def test_a_picture_that_is_broken_costs_its_own_comparisons_alone(
    bench: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = bench.drawn(golden="off")
    broken = next(spec for spec in folder.plan.specs.values() if spec.world_size > 1)
    whole, _ = ahead_of(folder)
    picture = folder.folder_of(broken) / folder.runs()[broken.digest].images[0]
    picture.write_bytes(picture.read_bytes()[:100])
    told, _ = ahead_of(folder)
    expected = {names for names, _ in whole.comparisons if broken.digest not in dict(names)}
    assert {names for names, _ in told.comparisons} == expected != set()
    assert "Traceback" in capfd.readouterr().err


def test_earlier_differences_stay_known_where_a_run_is_resumed(bench: Any) -> None:
    folder = bench.drawn(golden="off")
    steps.write_reports(steps.conclude(folder), folder.path)
    before = DifferenceIndex.read(folder.path)
    Ahead(folder, Told()).over()
    assert DifferenceIndex.read(folder.path) == before


@pytest.mark.parametrize("gpu", [None, 0])
def test_without_cuda_metrics_stay_on_the_processor(
    bench: Any, monkeypatch: pytest.MonkeyPatch, gpu: int | None
) -> None:
    monkeypatch.delitem(background_process.sys.modules, "torch", raising=False)
    ahead = Ahead(bench.plan(golden="off"), Told())
    ahead.use(gpu)
    assert ahead._measurer.device is None
    assert ahead.over()["gpus"] == []


def test_a_gpu_is_used_while_it_is_the_run_s_and_torch_is_there(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []

    class Torch:
        class cuda:
            is_available = staticmethod(lambda: True)
            empty_cache = staticmethod(lambda: emptied.append(True))

    monkeypatch.setitem(background_process.sys.modules, "torch", Torch)
    ahead = Ahead(bench.plan(golden="off"), Told())
    ahead.use(1)
    assert (ahead._measurer.device, emptied) == ("cuda:1", [])
    ahead.use(None)
    assert (ahead._measurer.device, emptied) == (None, [True])
    monkeypatch.setattr(background_process, "is_shareable", lambda gpu: False)
    ahead.use(2)
    assert ahead._measurer.device is None
    assert ahead.over()["gpus"] == [1]
    monkeypatch.delitem(background_process.sys.modules, "torch")
    assert background_process._device(1) is None


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 3 << 30), (str(16 << 30), 2 << 30), (str(1 << 30), comparisons.KEPT_BYTES)]
)
def test_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    monkeypatch.setattr(
        background_process.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (24 << 30) // 4096}.get
    )
    monkeypatch.setattr(background_process, "CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert background_process._kept_bytes() == expected


FAULTS = """
import os, resource, sys
import numpy as np
from harness.session import background_process

def faults():
    def arrays_come_and_go():
        arrays = [np.ones(3 << 20, np.uint8) for _ in range(20)]

    arrays_come_and_go()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays_come_and_go()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def listen():
    print(faults())
    sys.exit()

before = faults()
print(before)
background_process.listen = listen
background_process.main(os.dup(2))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not GNU's")
def test_freed_memory_is_kept_for_the_next_picture() -> None:
    untuned = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    untuned = {key: value for key, value in untuned.items() if not key.startswith("MALLOC_")}
    before, after = map(int, subprocess.check_output([sys.executable, "-c", FAULTS], env=untuned, text=True).split())
    pages_of_one_array = (3 << 20) // resource.getpagesize()
    assert after < pages_of_one_array < before


class Turn:
    """What comes out of :class:`background_process.Orders`, with the clock in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.used: list[int | None] = []
        self.lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        monkeypatch.setattr(background_process.time, "monotonic", lambda: self.now)
        self.orders = Orders(self.lines, self.used.append)

    def give(self, *orders: Any) -> None:
        for order in orders:
            what = "finished" if isinstance(order, str) else "device"
            self.lines.put({"what": what, "digest": order} if what == "finished" else {"what": what, "gpu": order})

    def next(self) -> str:
        return self.orders.next().digest


def test_a_gpu_is_used_at_once_and_until_what_came_before_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn(monkeypatch)
    turn.give("earlier", "a", 0, "b", None, "c")
    assert (turn.next(), turn.used) == ("earlier", [0])
    assert [turn.next(), turn.next()] == ["a", "b"]
    assert turn.used == [0]
    assert (turn.next(), turn.used) == ("c", [0, None])


def test_a_gpu_that_was_given_back_is_not_used_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn(monkeypatch)
    turn.give(0, "a", "b", "c", None, "d")
    assert (turn.next(), turn.used) == ("a", [0])
    turn.now += 2 * background_process.LAG_S
    assert (turn.next(), turn.used) == ("b", [0, None])
    assert [turn.next(), turn.next()] == ["c", "d"]
    assert turn.used == [0, None]


def test_the_next_gpu_takes_the_place_of_the_one_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn(monkeypatch)
    turn.give(0, "a", None, "b", 1, "c")
    assert (turn.next(), turn.used) == ("a", [0, None, 1])
    turn.now += 2 * background_process.LAG_S
    assert [turn.next(), turn.next()] == ["b", "c"]
    assert turn.used == [0, None, 1]
    turn.give(None, "d")
    assert (turn.next(), turn.used) == ("d", [0, None, 1, None])
