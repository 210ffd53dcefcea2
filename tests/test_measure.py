"""Comparisons of a folder: nothing is measured or read twice without need, and memory stays bounded."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from harness import measure
from harness.compare import Sample
from harness.measure import EDGES, AheadMeasurer, Measurer
from harness.types import Relation, Row, Run

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
    monkeypatch.setattr(measure, "KEPT_BYTES", 3 * SAMPLE_BYTES)
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
    monkeypatch.setattr(measure, "KEPT_BYTES", 0)
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
    assert measure._content(view) == measure._content(copy)
    assert measure._content(view) != measure._content(Sample("other", (picture,), whole[:, ::2]))
    plain = hashlib.sha256()
    for array in (picture[:, ::-1], whole[:, ::2]):
        plain.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    assert measure._content(view) == plain.hexdigest()


def test_ahead_of_the_report_everything_is_measured_that_rows_ask_for(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.drawn()
    runs, rows = folder.runs(), folder.plan.rows
    expected = [Measurer(folder).of_row(row, runs) for row in rows]
    assert {comparison.relation for found in expected for comparison in found} <= set(EDGES)
    monkeypatch.setattr(measure, "KEPT_BYTES", 0)
    measurer = AheadMeasurer(folder, lambda *_: None).wait()
    # A folder that is read no more has nothing to give: what is asked for now is known already.
    monkeypatch.setattr(type(folder), "sample", None)
    assert [measurer.of_row(row, runs) for row in rows] == expected


def test_each_row_is_handed_over_once_when_all_its_runs_are_there(bench: Any) -> None:
    folder = bench.drawn()
    seen: list[str] = []

    def besides(row: Row, runs: Mapping[str, Run], measurer: Measurer) -> None:
        assert runs.keys() >= set(row.runs.values())
        seen.append(row.name)

    ahead = AheadMeasurer(folder, besides)
    for run in folder.runs().values():  # told again, as after --resume
        ahead.finished(run)
    ahead.wait()
    assert sorted(seen) == sorted(row.name for row in folder.plan.rows)
