"""Comparisons of a folder: nothing is measured or read twice without need, and memory stays bounded."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.judging import comparisons
from harness.judging.comparisons import Measurer
from harness.metrics.psnr import Psnr
from harness.plugins import Context
from harness.runs.sample import Sample
from harness.types import Domain, Figure, Relation

NUM_SAMPLES = 6
SHAPE = (1, 4, 8, 8)
SAMPLE_BYTES = 3 * 4 * 4 * 8 * 8
"""Latents, and a trajectory of two steps, in float32."""


class Shelf:
    """Samples that differ, each made anew whenever it is read."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self._arrays: list[weakref.ref[Any]] = []

    def load(self, number: int) -> Sample:
        self.read.append(number)
        latents = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        trajectory = np.stack([latents, latents])
        self._arrays.append(weakref.ref(trajectory))
        return Sample(str(number), None, latents, trajectory)

    def num_alive(self) -> int:
        gc.collect()
        return sum(array() is not None for array in self._arrays)

    def measurer(self, bench: Any) -> Measurer:
        made = Measurer(bench.plan())
        for number in range(NUM_SAMPLES):
            made.add(str(number), lambda number=number: self.load(number))  # type: ignore[misc]
        return made


def figures(measurer: Measurer) -> list[Any]:
    pairs = [(str(a), str(b)) for a in range(NUM_SAMPLES) for b in range(a)]
    return [measurer.measure(Relation.PAIR, *pair) for pair in pairs]


def test_samples_are_read_once_where_there_is_room(bench: Any) -> None:
    shelf = Shelf()
    measurer = shelf.measurer(bench)
    assert all(comparison.figures for comparison in figures(measurer))
    assert sorted(shelf.read) == list(range(NUM_SAMPLES))


def test_what_does_not_fit_is_let_go_and_read_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = figures(Shelf().measurer(bench))
    monkeypatch.setattr(comparisons, "KEPT_BYTES", 3 * SAMPLE_BYTES)
    shelf = Shelf()
    measurer = shelf.measurer(bench)
    assert figures(measurer) == expected
    assert shelf.num_alive() == 3
    assert len(shelf.read) > NUM_SAMPLES
    # Figures and digests outlive their samples: the same questions read nothing.
    before = len(shelf.read)
    assert figures(measurer) == expected
    assert len(shelf.read) == before


def test_the_two_that_are_compared_are_there_however_large(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = figures(Shelf().measurer(bench))
    monkeypatch.setattr(comparisons, "KEPT_BYTES", 0)
    shelf = Shelf()
    measurer = shelf.measurer(bench)
    assert figures(measurer) == expected
    assert shelf.num_alive() == 2


def test_equal_content_is_measured_once(bench: Any) -> None:
    shelf = Shelf()
    measurer = shelf.measurer(bench)
    first = measurer.measure(Relation.PAIR, "0", "1")
    measurer.add("copy", lambda: shelf.load(1))
    again = measurer.measure(Relation.GOLDEN_CANDIDATE, "0", "copy")
    assert again.figures is first.figures
    assert (again.relation, again.candidate) == (Relation.GOLDEN_CANDIDATE, "copy")


def test_the_digest_of_a_view_is_that_of_its_values() -> None:
    whole = np.arange(2 * 4 * 6 * 6, dtype=np.float32).reshape(2, 4, 6, 6)
    picture = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    view = Sample("view", (picture[:, ::-1],), whole[:, ::2])
    copy = Sample("copy", (picture[:, ::-1].copy(),), whole[:, ::2].copy())
    assert comparisons._content(view) == comparisons._content(copy)
    assert comparisons._content(view) != comparisons._content(Sample("other", (picture,), whole[:, ::2]))
    plain = hashlib.sha256()
    for array in (picture[:, ::-1], whole[:, ::2]):
        plain.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    assert comparisons._content(view) == plain.hexdigest()


def test_rows_are_compared_on_all_cores_and_found_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.drawn()
    runs, rows = folder.runs(), folder.plan.rows
    expected = [Measurer(folder).of_row(row, runs) for row in rows]
    measurer = Measurer(folder)
    threads: set[str] = set()

    class Watched(Psnr):
        def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure:
            threads.add(threading.current_thread().name)
            return super().measure(reference, candidate, domain, context)

    monkeypatch.setattr(measurer, "_metrics", [Watched() if type(m) is Psnr else m for m in measurer._metrics])
    measurer.compare(rows, runs)
    assert threads
    assert threading.current_thread().name not in threads
    monkeypatch.setattr(type(folder), "sample", None)
    assert [measurer.of_row(row, runs) for row in rows] == expected


def test_a_metric_may_leave_itself_out(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Psnr):
        def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure | None:
            return None

    measurer = Shelf().measurer(bench)
    monkeypatch.setattr(measurer, "_metrics", [Never(), Psnr()])
    assert [figure.metric for figure in measurer.measure(Relation.PAIR, "0", "1").figures] == ["psnr"]


def test_what_was_measured_of_a_golden_lacks_the_steps_and_a_run_has_them(bench: Any) -> None:
    """Whichever comes first: a golden is a run's content without its trajectory."""
    shelf = Shelf()
    expected = shelf.measurer(bench).measure(Relation.PAIR, "0", "1")
    assert len(expected.steps_db) == 2
    measurer = shelf.measurer(bench)
    measurer.add("golden", lambda: replace(shelf.load(0), trajectory=None))
    assert not measurer.measure(Relation.GOLDEN_CANDIDATE, "golden", "1").steps_db
    assert measurer.measure(Relation.PAIR, "0", "1") == expected
