"""GPUs shared between real processes; the list of GPUs is given, the locks are real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.execution import gpus, locks
from harness.execution.gpus import Gpu, Lease

TWO = (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb"))
THREE = (*TWO, Gpu(2, "GPU-cc"))

TAKE = """
import json, sys
from pathlib import Path
from typing import Any
from harness.execution.gpus import Gpu, Lease
folder, gpus, least, most = json.loads(sys.argv[1])
lease = Lease([Gpu(*gpu) for gpu in gpus], "reports/other", Path(folder))
for message in lease.take(least, most):
    print(message, flush=True)
print(list(lease.held), flush=True)
sys.stdin.readline()
lease.release()
print("released", flush=True)
sys.stdin.readline()
"""

TAKE_AND_TELL = """
import os, sys
import filelock
from pathlib import Path
from typing import Any
from harness.execution import locks
from harness.execution.gpus import Gpu, Lease
os.setuid(int(sys.argv[2]))
lease = Lease([Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb")], "reports/other", Path(sys.argv[1]))
assert not list(lease.take(2, 2)) and lease.held == (0, 1)
assert "(reports/other)" in locks.holder(Path(sys.argv[1], "GPU-aa.lock"))
"""


class Other:
    """Another process with a lease of its own."""

    def __init__(self, folder: Path, gpus: Sequence[Gpu], least: int, most: int) -> None:
        asked = json.dumps([str(folder), [[gpu.index, gpu.uuid] for gpu in gpus], least, most])
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE, asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def until_held(self) -> list[str]:
        """What it says while it waits, once it holds two."""
        lines = []
        while (line := self.line()) != "[0, 1]":
            assert line.startswith("waiting for 2 of these GPUs: "), line
            lines.append(line)
        return lines

    def ask_to_release(self) -> None:
        """Now, or as soon as it holds something."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def release(self) -> None:
        self.ask_to_release()
        assert self.line() == "released"


Start = Callable[[Sequence[Gpu], int, int], Other]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@pytest.fixture
def other(folder: Path) -> Iterator[Start]:
    started = []

    def start(gpus: Sequence[Gpu], least: int, most: int) -> Other:
        started.append(Other(folder, gpus, least, most))
        return started[-1]

    yield start
    for one in started:
        with one.process:
            one.process.kill()


def take(lease: Lease, least: int, most: int) -> tuple[int, ...]:
    """Take what is free at once."""
    assert not list(lease.take(least, most))
    return lease.held


def test_runs_take_what_is_free(other: Start, folder: Path) -> None:
    first = other(THREE, 1, 1)
    assert first.line() == "[0]"
    mine = Lease(THREE, "reports/mine", folder)
    assert take(mine, 2, 2) == (1, 2)
    mine.release()
    assert take(mine, 1, 8) == (1, 2)
    first.release()
    assert take(mine, 1, 8) == (1, 2)  # it has enough
    assert take(mine, 3, 8) == (1, 2, 0)  # what is held stays where it was


def test_a_gpu_is_known_by_its_name_whatever_its_number(other: Start, folder: Path) -> None:
    """As with CUDA_VISIBLE_DEVICES=1 there and 0,1 here."""
    assert other([Gpu(0, "GPU-bb")], 1, 1).line() == "[0]"
    assert take(Lease(TWO, "reports/mine", folder), 1, 2) == (0,)


def test_who_waits_is_told_for_whom_and_goes_on_when_they_are_done(other: Start, folder: Path) -> None:
    first = other(TWO, 1, 1)
    assert first.line() == "[0]"
    mine = Lease(TWO, "reports/mine", folder)
    waiting = mine.take(2, 2)
    message = next(waiting)
    assert message.startswith(f"waiting for 2 of these GPUs: GPU 0: process {first.process.pid} (reports/other), since")
    assert "GPU 1" not in message
    assert mine.held == ()  # nothing is held while waiting, so the other may take both
    first.release()
    assert list(waiting) == []
    assert mine.held == (0, 1)


def test_two_runs_that_want_both_gpus_have_them_one_after_the_other(other: Start) -> None:
    first = other(TWO, 2, 2)
    assert not first.until_held()
    second = other(TWO, 2, 2)
    assert second.line().startswith("waiting for 2 of these GPUs: ")
    first.release()
    assert not second.until_held()


def test_runs_that_ask_at_once_all_come_to_their_turn(other: Start) -> None:
    """Each wants both: if one were held while waiting for the other, two would wait for ever."""
    left = [other(TWO, 2, 2) for _ in range(3)]
    for one in left:
        one.ask_to_release()
    for one in left:
        one.until_held()
        assert one.line() == "released"


def test_who_gives_back_and_wants_more_stands_in_line(other: Start, folder: Path) -> None:
    """A run takes GPUs batch by batch; without a line it would always be there first, and others never."""
    mine = Lease(TWO, "reports/mine", folder)
    assert take(mine, 2, 2) == (0, 1)
    second = other(TWO, 1, 1)
    assert second.line().startswith("waiting for 1 of these GPUs: GPU 0: process ")
    mine.release()
    waiting = mine.take(2, 2)
    assert next(waiting).startswith("waiting for 2 of these GPUs: ")
    assert second.line() == "[0]"
    second.release()
    list(waiting)
    assert mine.held == (0, 1)


def test_gpus_of_a_run_that_was_killed_are_free(other: Start, folder: Path) -> None:
    killed = other(TWO, 2, 2)
    assert killed.line() == "[0, 1]"
    mine = Lease(TWO, "reports/mine", folder)
    waiting = mine.take(2, 2)
    next(waiting)
    killed.process.kill()
    killed.process.wait()
    assert list(waiting) == []
    assert mine.held == (0, 1)


def test_the_wait_has_a_limit_and_the_error_says_what_to_do(other: Start, folder: Path) -> None:
    first = other(TWO, 2, 2)
    assert first.line() == "[0, 1]"
    with pytest.raises(InfrastructureError) as caught:
        list(Lease(TWO, "reports/mine", folder, wait_s=0).take(1, 1))
    message = str(caught.value)
    assert message.startswith("after 0 s still waiting for 1 of these GPUs: GPU 0: process ")
    assert message.endswith("; end that run, or name other GPUs in CUDA_VISIBLE_DEVICES")
    assert caught.value.exit_code == 3


def test_more_than_there_are_is_not_waited_for(folder: Path) -> None:
    assert take(Lease(TWO, "reports/mine", folder), 3, 3) == (0, 1)
    assert take(Lease((), "reports/mine", folder), 2, 2) == ()


def test_who_is_no_longer_wanted_gives_up_and_holds_nothing(other: Start, folder: Path) -> None:
    assert other(TWO, 2, 2).line() == "[0, 1]"
    mine, answers = Lease(TWO, "reports/mine", folder), iter([True, True])
    assert len(list(mine.take(1, 1, wanted=lambda: next(answers, False)))) == 1  # it has begun to wait
    assert mine.held == ()
    held = locks.attempt(folder / "GPU-aa.line", "somebody else")
    assert held
    held.release()


def test_every_rank_has_a_number_and_those_beyond_the_last_gpu_too(folder: Path) -> None:
    mine = Lease((Gpu(3, "GPU-aa"), Gpu(5, "GPU-bb")), "reports/mine", folder)
    assert mine.indices(2) == (0, 1)  # where there is nothing to hold
    assert take(mine, 2, 2) == (3, 5)
    assert (mine.indices(1), mine.indices(4)) == ((3,), (3, 5, 2, 3))


def test_two_leases_of_one_process_share(folder: Path) -> None:
    """A pool inside another one, as in the fuzzer: they work by turns."""
    outer, inner = Lease(TWO, "outer", folder), Lease(TWO, "inner", folder)
    assert take(outer, 2, 2) == take(inner, 2, 2) == (0, 1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lease = Lease(TWO, "reports/mine", tmp_path / "file" / "locks")
    with pytest.raises(InfrastructureError, match=r"GPU-aa\.line: GPU 0 cannot be locked \(Not a directory\)"):
        list(lease.take(1, 1))


def test_every_user_may_add_locks(folder: Path) -> None:
    take(Lease(TWO, "reports/mine", folder), 1, 1)
    assert folder.stat().st_mode & 0o1777 == 0o1777


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for two users")
def test_users_take_turns_at_a_gpu() -> None:
    """In a folder that is sticky, as Linux guards files of others there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:  # pytest's own folders are not
        Path(open_to_all).chmod(0o755)
        folder = Path(open_to_all) / "locks"
        mine = Lease(TWO, "reports/mine", folder)
        assert take(mine, 2, 2) == (0, 1)
        mine.release()
        for user in (65534, 65533):
            subprocess.run([sys.executable, "-c", TAKE_AND_TELL, str(folder), str(user)], check=True)
        assert take(mine, 2, 2) == (0, 1)
        mine.release()


def test_processors_are_not_locked() -> None:
    assert gpus.visible("cpu") == ()


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return ANSWER; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 7; return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, device, 16); return 0; }
"""


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="the driver that is stood in for is compiled here")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A CUDA driver of our own, with two GPUs."""

    def build(answer: int) -> None:
        source = tmp_path / "driver.c"
        source.write_text(DRIVER.replace("ANSWER", str(answer)))
        library = tmp_path / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return build


@needs_cc
def test_the_driver_names_the_gpus(driver: Callable[[int], None]) -> None:
    driver(0)
    first, second = gpus.visible("cuda")
    assert first == Gpu(0, "GPU-07070707-0707-0707-0707-070707070707")
    assert second == Gpu(1, "GPU-08080808-0808-0808-0808-080808080808")


@needs_cc
def test_a_driver_without_gpus_shows_none(driver: Callable[[int], None]) -> None:
    driver(100)
    assert gpus.visible("cuda") == ()


@needs_cc
def test_a_driver_that_fails_is_an_error(driver: Callable[[int], None]) -> None:
    driver(999)
    with pytest.raises(InfrastructureError, match="the CUDA driver does not answer: cuInit answers 999"):
        gpus.visible("cuda")
