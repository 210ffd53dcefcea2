"""Running a matrix from its folder to its exit code: what is judged stays, whatever happens afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from harness import codec
from harness.cli.compare import compare
from harness.cli.run import compute
from harness.errors import InfrastructureError
from harness.execution.events import Event
from harness.execution.pool import Pool
from harness.session import explain, steps
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
    assert compute(folder, lambda logs: Breaks(logs, error)) == code
    report = codec.read_json(folder.path / "report.json", Report)
    assert Outcome.FAIL in {row.verdict.outcome for row in report.rows if row.verdict}
    assert (report.complete, report.exit_code) == (True, 1)
    assert (folder.path / "index.html").is_file()


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
