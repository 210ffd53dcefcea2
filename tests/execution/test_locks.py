"""Locks between real processes: held by one, told to the other, gone with their owner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.execution import locks

HOLD = """
import sys
from pathlib import Path
from harness.execution import locks
from harness.errors import UsageError
held = locks.attempt(Path(sys.argv[1]), sys.argv[2])
print("held" if held else "busy", flush=True)
sys.stdin.read()
"""

Hold = Callable[[Path, str], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Another process that takes a lock, and keeps it until its input ends."""
    started = []

    def start(path: Path, purpose: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), purpose], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def test_a_lock_is_held_by_one_process_and_names_it(hold: Hold, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    other = hold(path, "reports/other")
    assert locks.attempt(path, "reports/mine") is None
    assert locks.holder(path).startswith(f"process {other.pid} (reports/other), since ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_lock_ends_with_its_owner(hold: Hold, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "a.lock"
    other = hold(path, "reports/other")
    other.send_signal(number)
    other.wait()
    mine = locks.attempt(path, "reports/mine")
    assert mine is not None
    assert locks.holder(path).startswith(f"process {os.getpid()} (reports/mine)")
    mine.release()


def test_one_process_may_take_a_lock_twice_and_gives_it_back_twice(hold: Hold, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    outer, inner = locks.attempt(path, "outer"), locks.attempt(path, "inner")
    assert outer is not None
    assert inner is not None
    assert "(outer)" in locks.holder(path)
    inner.release()
    taken = subprocess.run([sys.executable, "-c", HOLD, str(path), "x"], input="", capture_output=True, text=True)
    assert taken.stdout == "busy\n"
    outer.release()
    hold(path, "x")


@pytest.mark.parametrize("note", ["", "[]", '{"pid": 1}', '{"pid": 1, "purpose": "p", "since_s": "noon"}'])
def test_a_note_that_cannot_be_read_is_no_error(tmp_path: Path, note: str) -> None:
    path = tmp_path / "a.lock"
    assert locks.holder(path) == "another process"
    (tmp_path / "a.lock.holder.json").write_text(note)
    assert locks.holder(path) == "another process"


def test_of_several_notes_the_latest_counts(tmp_path: Path) -> None:
    """Each user leaves a note of their own, and takes none away."""
    path = tmp_path / "a.lock"
    (tmp_path / "a.lock.holder-4711.json").write_text('{"pid": 1, "purpose": "long ago", "since_s": 1.0}')
    held = locks.attempt(path, "now")
    assert held is not None
    assert f"process {os.getpid()} (now)" in locks.holder(path)
    held.release()


def test_a_note_that_cannot_be_left_frees_the_lock(hold: Hold, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    (tmp_path / f"a.lock.holder-{os.getuid()}.json").mkdir()  # nothing can be put in its place
    with pytest.raises(IsADirectoryError) as caught:
        locks.attempt(path, "p")
    assert caught.tb  # whoever keeps the error keeps what the lock was taken with
    (tmp_path / f"a.lock.holder-{os.getuid()}.json").rmdir()
    assert {file.name for file in tmp_path.iterdir()} == {"a.lock"}
    hold(path, "p")


def test_a_note_is_not_written_through_a_link_that_lies_in_wait(tmp_path: Path) -> None:
    """Anybody may put files into the folder of locks."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "locks"
    folder.mkdir()
    names = (f".a.lock.holder.json.{os.getpid()}", f".a.lock.holder-{os.getuid()}.json.{os.getpid()}")
    for name in (*names, f"a.lock.holder-{os.getuid()}.json"):
        (folder / name).symlink_to(precious)
    held = locks.attempt(folder / "a.lock", "p")
    assert held is not None
    assert f"process {os.getpid()} (p)" in locks.holder(folder / "a.lock")
    held.release()
    assert precious.read_text() == "mine"


def test_any_user_may_open_a_lock_file(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        held = locks.attempt(tmp_path / "a.lock", "p")
        assert held is not None
        held.release()
    finally:
        os.umask(before)
    assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o666


def test_a_run_folder_is_worked_in_by_one_process(hold: Hold, tmp_path: Path) -> None:
    with locks.claimed(tmp_path, "recording"), locks.claimed(tmp_path, "explaining"):
        pass
    other = hold(tmp_path / ".lock", "recording")
    with pytest.raises(UsageError) as caught, locks.claimed(tmp_path, "recording"):
        raise AssertionError("both work in it")
    expected = (
        rf"{re.escape(str(tmp_path))}: process {other.pid} \(recording\), since .* works in it; let it finish, .*"
    )
    assert re.fullmatch(expected, str(caught.value))
