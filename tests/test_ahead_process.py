"""What is measured and drawn beside the ranks: all that a report asks for, each sample read once, and none kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from harness import ahead_process, codec, session
from harness.ahead_process import Ahead
from harness.compare import Sample
from harness.differences import DifferenceIndex, drawing
from harness.measure import Measurer, Names
from harness.record import RunFolder
from harness.types import Comparison, Relation, Run


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
    ahead = Ahead(folder, None, told)
    for digest in folder.plan.specs:
        ahead.finished(digest)
    return told, ahead.over()


def test_all_that_is_judged_is_measured_and_all_that_is_shown_is_drawn(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.approved()
    folder = bench.drawn()
    expected = session.conclude(folder)
    session.write_reports(expected, folder.path)
    drawn = {path.name: path.read_bytes() for path in (folder.path / "diffs").iterdir()}
    assert len([name for name in drawn if name.endswith(".jpg")]) >= 3

    fresh = bench.drawn()
    told, cost = ahead_of(fresh)
    assert sorted(told.rows) == sorted(row.name for row in fresh.plan.rows)
    assert cost["samples_read"] == len(fresh.plan.specs) + len(fresh.plan.matrix.cases)  # and a golden for each case
    assert cost["comparing_cpu_s"] > 0
    monkeypatch.setattr(RunFolder, "sample", None)
    monkeypatch.setattr(drawing, "load_picture", None)
    report = session.conclude(fresh, told.measurer(fresh))
    session.write_reports(report, fresh.path)
    assert report.rows == expected.rows
    assert {relation for row in report.rows for relation in [each.relation for each in row.comparisons]} >= {
        Relation.EXCHANGE,
        Relation.GOLDEN_CANDIDATE,
    }
    pictures = {path.name: path.read_bytes() for path in (fresh.path / "diffs").glob("*.jpg")}
    assert pictures == {name: content for name, content in drawn.items() if name.endswith(".jpg")}
    page, original = ((each.path / "h.html").read_text().count("diffs/") for each in (fresh, folder))
    assert page == original > 0


def test_samples_that_nothing_waits_for_are_let_go(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.drawn(golden="off")
    pictures: list[weakref.ref[Any]] = []
    load = RunFolder.sample

    def watched(self: RunFolder, run: Run) -> Sample:
        found = load(self, run)
        copies = tuple(np.array(image) for image in found.images or ())
        pictures.extend(map(weakref.ref, copies))
        return Sample(found.key, copies, found.latents, found.trajectory)

    monkeypatch.setattr(RunFolder, "sample", watched)
    ahead = Ahead(folder, None, Told())
    for digest in folder.plan.specs:
        ahead.finished(digest)
    gc.collect()
    assert len(pictures) == len(folder.plan.specs)
    assert not [picture for picture in pictures if picture() is not None]


def test_a_run_told_twice_or_unknown_or_failed_does_no_harm(bench: Any) -> None:
    folder = bench.plan(golden="off")
    first, *others = folder.plan.specs.values()
    bench.draw(folder, others)
    bench.fail(folder, first)
    told = Told()
    ahead = Ahead(folder, None, told)
    for digest in ("no such run", *folder.plan.specs, *folder.plan.specs):
        ahead.finished(digest)
    complete = [row.name for row in folder.plan.rows if row.runs and first.digest not in row.runs.values()]
    assert told.rows == complete != []
    names = [names for names, _ in told.comparisons]
    assert not [each for each in names if first.digest in dict(each)]


def test_earlier_differences_stay_known_where_a_run_is_resumed(bench: Any) -> None:
    folder = bench.drawn(golden="off")
    session.write_reports(session.conclude(folder), folder.path)
    before = DifferenceIndex.read(folder.path)
    Ahead(folder, None, Told()).over()
    assert DifferenceIndex.read(folder.path) == before


@pytest.mark.parametrize("gpu", [None, 0])
def test_without_cuda_metrics_stay_on_the_processor(gpu: int | None) -> None:
    assert ahead_process._device(gpu) is None


def test_a_gpu_is_used_where_torch_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        class cuda:
            is_available = staticmethod(lambda: True)

    monkeypatch.setitem(ahead_process.sys.modules, "torch", Cuda)
    assert ahead_process._device(1) == "cuda:1"
    assert ahead_process._device(None) is None
    monkeypatch.delitem(ahead_process.sys.modules, "torch")
    assert ahead_process._device(1) is None
