"""Measuring beside the ranks, in a real process: what it says is learnt, and nothing depends on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import Any

import psutil
import pytest

from harness.execution.forkserver import Forkserver
from harness.execution.rank import ForkedRank
from harness.runs.folder import RunFolder
from harness.session import background, steps
from harness.session.background import AheadMeasurer
from harness.types import FailureKind
from tests.waiting import DEADLINE_S, until


def process_of(measurer: AheadMeasurer) -> psutil.Process:
    process = measurer._process
    assert isinstance(process, ForkedRank)
    assert until(lambda: process.pid is not None)
    found = psutil.Process(process.pid)
    assert until(lambda: found.name() == "sp-measure")
    return found


def begun(bench: Any) -> tuple[RunFolder, AheadMeasurer]:
    """A run under way: everything is drawn, and was handed over as it came."""
    folder = bench.plan(golden="off")
    measurer = AheadMeasurer(folder)
    for spec in folder.plan.specs.values():
        bench.draw(folder, [spec])
        measurer.finished(folder.runs()[spec.digest])
    return folder, measurer


def measured(folder: RunFolder) -> list[dict[str, Any]]:
    journal = folder.path / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.is_file() else []
    return [line for line in map(json.loads, lines) if line["event"] == "measured"]


def test_what_the_process_says_is_learnt_and_what_it_cost_is_noted(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, measurer = begun(bench)
    expected = steps.conclude(folder).rows
    process = process_of(measurer)
    learner = measurer.wait()
    assert not process.is_running()
    monkeypatch.setattr(RunFolder, "sample", None)
    assert steps.conclude(folder, learner).rows == expected
    assert measurer.wait() is learner
    (line,) = measured(folder)
    assert line["samples_read"] == len(folder.plan.specs)
    assert line["comparisons"] > len(folder.plan.rows)
    assert 0 < line["comparing_cpu_s"] < line["cpu_s"]
    assert (folder.path / "logs" / background.LOG).read_text() == ""


def test_runs_of_an_earlier_session_are_handed_over_with_the_first_of_this_one(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.plan(golden="off")
    *earlier, last = folder.plan.specs.values()
    bench.draw(folder, earlier)
    measurer = AheadMeasurer(folder)
    assert measurer._process is None
    bench.draw(folder, [last])
    measurer.finished(folder.runs()[last.digest])
    learner = measurer.wait()
    expected = steps.conclude(folder).rows
    monkeypatch.setattr(RunFolder, "sample", None)
    assert steps.conclude(folder, learner).rows == expected


def test_without_a_new_run_no_process_is_started(bench: Any) -> None:
    folder = bench.drawn(golden="off")
    measurer = AheadMeasurer(folder)
    assert steps.conclude(folder, measurer.wait()).rows == steps.conclude(folder).rows
    assert not (folder.path / "logs").exists()
    assert not measured(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_process_that_dies_or_falls_silent_costs_nothing_but_time(
    bench: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(background, "SILENT_AT_MOST_S", 0.5)
    folder = bench.plan(golden="off")
    measurer = AheadMeasurer(folder)
    first, *others = folder.plan.specs.values()
    bench.draw(folder, [first])
    measurer.finished(folder.runs()[first.digest])
    process = process_of(measurer)
    os.kill(process.pid, number)
    for spec in others:
        bench.draw(folder, [spec])
        measurer.finished(folder.runs()[spec.digest])
    report = steps.conclude(folder, measurer.wait())
    assert until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert report.rows == steps.conclude(folder).rows
    assert not measured(folder)


def test_a_run_that_cannot_be_read_is_for_who_judges_to_tell(bench: Any) -> None:
    folder = bench.plan(golden="off")
    measurer = AheadMeasurer(folder)
    specs = list(folder.plan.specs.values())
    bench.draw(folder, specs)
    broken = next(spec for spec in specs if spec.world_size > 1)
    runs = folder.runs()
    picture = folder.folder_of(broken) / runs[broken.digest].images[0]
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    for spec in specs:
        measurer.finished(runs[spec.digest])
    learner = measurer.wait()
    assert "Traceback" in (folder.path / "logs" / background.LOG).read_text()
    assert measured(folder)  # the others were measured
    picture.write_bytes(whole)
    assert steps.conclude(folder, learner).rows == steps.conclude(folder).rows


def test_abandoned_it_ends_at_once(bench: Any) -> None:
    _, measurer = begun(bench)
    process = process_of(measurer)
    measurer.abandon()
    assert until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    measurer.abandon()  # and again, as after two Ctrl-C


def test_abandoned_before_it_is_there_it_ends_when_it_comes(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose forkserver is still importing; here it is stopped."""
    monkeypatch.setenv("A_FORKSERVER_OF_ITS_OWN", str(time.monotonic_ns()))
    monkeypatch.setattr(background, "END_S", 0.0)
    forkserver = Forkserver.here(bench.root / "forkserver.log").process
    forkserver.send_signal(signal.SIGSTOP)
    try:
        _, measurer = begun(bench)
        reader = measurer._reader
        measurer.abandon()
        assert reader.is_alive()
    finally:
        forkserver.send_signal(signal.SIGCONT)
    reader.join(DEADLINE_S)  # until its pipe has closed
    assert not reader.is_alive()


def test_runs_that_are_to_be_drawn_once_more_are_not_taken_for_over(bench: Any) -> None:
    """Each is handed over when it is there: nothing of its rows is missing then."""
    folder = bench.plan(golden="off")
    *drawn, one, two = folder.plan.specs.values()
    bench.draw(folder, drawn)
    for spec in (one, two):
        bench.fail(folder, spec, FailureKind.KILLED)
    measurer = AheadMeasurer(folder)
    for spec in (one, two):
        shutil.rmtree(folder.folder_of(spec))
        bench.draw(folder, [spec])
        measurer.finished(folder.runs()[spec.digest])
    measurer.wait()
    (line,) = measured(folder)
    assert line["samples_read"] == len(folder.plan.specs)


def test_a_process_that_takes_no_orders_makes_nobody_wait(bench: Any) -> None:
    folder = bench.plan(golden="off")
    measurer = AheadMeasurer(folder)
    specs = list(folder.plan.specs.values())
    bench.draw(folder, specs)
    runs = folder.runs()
    measurer.finished(runs[specs[0].digest])
    process = process_of(measurer)
    process.suspend()
    while not measurer._orders:  # until its pipe is full
        measurer.finished(runs[specs[1].digest])
    for spec in specs:
        measurer.finished(runs[spec.digest])
    process.resume()
    learner = measurer.wait()
    assert steps.conclude(folder, learner).rows == steps.conclude(folder).rows
    (line,) = measured(folder)
    assert line["samples_read"] == len(specs)


def test_gpus_that_were_held_are_not_gpus_that_were_used(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = bench.plan(golden="off")
    measurer = AheadMeasurer(folder)
    measurer.holding((2, 3))
    bench.draw(folder, folder.plan.specs.values())
    for run in folder.runs().values():
        measurer.finished(run)
    measurer.holding(())
    measurer.holding((3,))
    measurer.wait()
    (line,) = measured(folder)
    assert line["gpus"] == []  # there was none to be used
