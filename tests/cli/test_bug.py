"""A bug of the harness ends with a code of its own, and loses nothing that was computed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import codec, plugins
from harness.cli.app import main
from harness.cli.run import compute
from harness.errors import BugError
from harness.judging import judge
from harness.session import steps
from harness.types import Outcome, Report


def kept(line: str) -> Path:
    found = re.search(r"traceback, which is in (\S+\.txt)", line)
    assert found, line
    return Path(found[1])


def raises(*arguments: object, **named: object) -> Any:
    raise KeyError("nobody expects this")


def ended(monkeypatch: pytest.MonkeyPatch, error: Exception) -> object:
    """Let a command meet an exception, and return its exit code."""

    def broken(kind: object) -> None:
        raise error

    monkeypatch.setattr(plugins, "names", broken)
    monkeypatch.setattr(sys, "argv", ["sp-harness", "ls"])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_an_exception_nobody_expects_ends_with_70_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, KeyError("nobody\nexpects \x1b[31mthis")) == 70
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sp-harness: this is a bug of sp-harness")
    assert line.isprintable()
    trace = kept(line).read_text()
    assert "in broken" in trace
    assert "'sp-harness', 'ls'" in trace


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")], ids=["memory", "descriptors"])
def test_what_a_machine_lacks_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert ended(monkeypatch, error) == 3
    assert len(capfd.readouterr().err.splitlines()) == 1


class StopsHalfway:
    """An executor that meets a bug after some runs."""

    def __init__(self, bench: Any, folder: Any) -> None:
        self._bench, self._folder = bench, folder

    def __enter__(self) -> StopsHalfway:
        return self

    def __exit__(self, *what: object) -> None: ...

    def execute(self, specs: Any, place: Any) -> Iterator[Any]:
        row = self._folder.plan.rows[0]
        self._bench.draw(self._folder, self._folder.missing([row]))
        yield from raises()


def test_what_was_drawn_before_a_bug_is_judged_and_reported(bench: Any) -> None:
    folder = bench.plan(golden="off")
    with pytest.raises(BugError) as caught:
        compute(folder, lambda logs: StopsHalfway(bench, folder))
    assert caught.value.exit_code == 70
    assert kept(str(caught.value)).parent == folder.path / "logs"
    report = codec.read_json(folder.path / "report.json", Report)
    assert (report.exit_code, report.complete) == (70, False)
    assert report.rows[0].verdict is not None
    assert report.rows[0].verdict.outcome == Outcome.PASS
    assert any("a bug of sp-harness" in note for note in report.notes)
    assert (folder.path / "index.html").is_file()


def test_a_bug_in_judging_leaves_runs_that_can_be_judged_later(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.drawn(golden="off")
    with monkeypatch.context() as patch:
        patch.setattr(judge, "judge", raises)
        with pytest.raises(BugError):
            compute(folder, lambda logs: StopsHalfway(bench, folder))
    assert not (folder.path / "report.json").exists()
    assert steps.conclude(folder).exit_code == 0
