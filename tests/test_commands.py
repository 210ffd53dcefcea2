"""Running a matrix from its folder to its exit code: what is judged stays, whatever happens afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import codec, commands, explain
from harness.errors import InfrastructureError
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
