"""Running a matrix from its folder to its exit code: what is judged stays, whatever happens afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import codec, commands, explain, golden
from harness.errors import InfrastructureError
from harness.measure import Measurer
from harness.pool import Event
from harness.types import Outcome, Report


class Breaks:
    """An executor with nothing left to draw, that breaks where rows are drawn once more."""

    def __init__(self, logs: Path, error: BaseException) -> None:
        self._error = error if logs.name == "explained" else None

    def __enter__(self) -> Breaks:
        return self

    def __exit__(self, *what: object) -> None: ...

    def execute(self, *arguments: Any) -> Iterator[Event]:
        if self._error:
            raise self._error
        yield from ()


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (InfrastructureError("no GPU is left"), 1)], ids=["ctrl-c", "gpu"]
)
def test_a_report_is_there_before_failing_rows_are_explained(
    bench: Any, repaint: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(explain, "_can_be_probed", lambda row: True)  # the fake engine cannot
    folder = bench.drawn(golden="off", edit=repaint("candidate"))
    assert commands.run(folder, executor=lambda logs: Breaks(logs, error)) == code  # type: ignore[arg-type, return-value]
    report = codec.read_json(folder.path / "report.json", Report)
    assert Outcome.FAIL in {row.verdict.outcome for row in report.rows if row.verdict}
    assert (report.complete, report.exit_code) == (True, 1)
    assert (folder.path / "index.html").is_file()


def test_goldens_are_compared_by_the_thread_that_measures(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the one that judges when everything is drawn."""
    bench.approved()
    folder, threads, load = bench.drawn(), set(), golden.load_sample

    def watched(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return load(*arguments)

    monkeypatch.setattr(golden, "load_sample", watched)
    assert commands.run(folder, executor=lambda logs: Breaks(logs, KeyboardInterrupt())) == 0  # type: ignore[arg-type, return-value]
    assert threads == {"measure_0"}


def test_nothing_more_is_measured_when_the_machine_fails(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, measured = threading.Event(), threading.Event(), []

    def measure(*arguments: Any) -> None:
        measured.append(arguments)
        begun.set()
        go_on.wait(30)

    class Fails(Breaks):
        def execute(self, *arguments: Any) -> Iterator[Event]:
            assert begun.wait(30)
            raise InfrastructureError("the disk is full")

    monkeypatch.setattr(Measurer, "measure", measure)
    folder = bench.drawn(golden="off")
    with pytest.raises(InfrastructureError, match="the disk is full"):
        commands.run(folder, executor=lambda logs: Fails(logs, KeyboardInterrupt()))  # type: ignore[arg-type, return-value]
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "measure_0":
            thread.join(30)
    assert len(measured) == 1
