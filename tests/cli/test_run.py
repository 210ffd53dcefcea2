"""Running a matrix from its folder to its exit code: what is judged stays, whatever happens afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer import Exit

from harness import codec
from harness.cli.compare import compare
from harness.cli.run import compute
from harness.errors import InfrastructureError
from harness.execution.events import Event, FolderOf
from harness.execution.pool import Pool
from harness.reporting import difference_images
from harness.runs.folder import RunFolder
from harness.session import explain, steps
from harness.types import Outcome, Report, RunSpec
from tests.waiting import until


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
    assert compute(folder, lambda logs: Breaks(logs, error)) == code
    report = codec.read_json(folder.path / "report.json", Report)
    assert Outcome.FAIL in {row.verdict.outcome for row in report.rows if row.verdict}
    assert (report.complete, report.exit_code) == (True, 1)
    assert (folder.path / "index.html").is_file()


def test_everything_is_measured_and_drawn_while_runs_are_drawn(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process of its own: the one that judges reads no sample and no picture."""
    folder = bench.plan(golden="off")
    monkeypatch.setattr(RunFolder, "sample", None)
    monkeypatch.setattr(difference_images, "load_picture", None)
    assert compute(folder, Pool) == 0
    report = codec.read_json(folder.path / "report.json", Report)
    assert {row.verdict.outcome for row in report.rows if row.verdict} == {Outcome.PASS}
    assert any(comparison.figures for row in report.rows for comparison in row.comparisons)
    assert list((folder.path / "diffs").glob("*.jpg"))
    (line,) = [line for line in journal(folder) if line["event"] == "measured"]
    assert line["samples_read"] == len(folder.runs())


def test_what_is_interrupted_while_it_is_judged_can_be_judged_later(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = bench.drawn(golden="off")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_reports", interrupt)
        assert compute(folder, Pool) == 130
    assert f"judge what is there with: sp-harness compare {folder.path}" in capsys.readouterr().out
    with pytest.raises(Exit) as end:
        compare(folder.path)
    assert end.value.exit_code == 0


def test_nothing_more_is_measured_when_the_machine_fails(bench: Any) -> None:
    measuring: list[psutil.Process] = []

    class Fails(Breaks):
        def execute(self, specs: Sequence[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
            with Pool(folder.path / "logs") as pool:
                yield from pool.execute(specs[:2], folder_of)
            assert until(lambda: bool(measurers()))  # it takes its name when it is forked
            measuring.extend(measurers())
            raise InfrastructureError("the disk is full")

    folder = bench.plan(golden="off")
    with pytest.raises(InfrastructureError, match="the disk is full"):
        compute(folder, lambda logs: Fails(logs, KeyboardInterrupt()))
    assert len(measuring) == 1
    gone, alive = psutil.wait_procs(measuring, timeout=30)
    assert (len(gone), alive) == (1, [])
    assert not [line for line in journal(folder) if line["event"] == "measured"]


def measurers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process] if process.name() == "sp-measure" else []
    return found


def journal(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "journal.jsonl").read_text().splitlines()]
