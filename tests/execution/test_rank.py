"""Ranks as processes: forked from one forkserver, which they share with all groups and outlive by no moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness.execution.forkserver import Forkserver
from harness.execution.group import WorkerGroup
from harness.execution.group_key import GroupKey
from harness.execution.rank import ForkedRank
from harness.types import Case, RunSpec, Size
from harness.worker.protocol import Order, Start
from tests.waiting import until

START = Start(0, 1, "cpu", 0, "float32", "", "")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ready(rank: ForkedRank, engine: str = "fake") -> int:
    """Make a rank answer; its pid."""
    rank.send(START)
    rank.send(Order(engine))
    assert until(lambda: bool(rank.read()))
    assert rank.pid is not None
    return rank.pid


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ForkedRank]]:
    made: list[ForkedRank] = []

    def make(*modules: str) -> ForkedRank:
        made.append(ForkedRank(tmp_path / f"rank-{len(made)}.log", modules))
        return made[-1]

    yield make
    for rank in made:
        rank.kill()
        rank.close()


@pytest.fixture
def own_forkserver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forkserver that no other test has made import anything."""
    monkeypatch.setenv("A_FORKSERVER_OF_ITS_OWN", str(time.monotonic_ns()))


def parent(pid: int) -> psutil.Process:
    found = psutil.Process(pid).parent()
    assert found is not None
    return found


def has_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


def test_ranks_of_all_groups_have_one_forkserver(start: Callable[..., ForkedRank]) -> None:
    pids = [ready(start()) for _ in range(2)]
    assert pids[0] != pids[1]
    assert parent(pids[0]) == parent(pids[1])
    assert parent(pids[0]).pid in {child.pid for child in psutil.Process().children()}


@pytest.mark.usefixtures("own_forkserver")
def test_nothing_is_imported_that_nobody_asks_for(start: Callable[..., ForkedRank]) -> None:
    first = start()
    assert not has_torch(psutil.Process(ready(first)))
    forkserver = parent(first.pid or 0)
    second = psutil.Process(ready(start("torch")))
    assert second.parent() == forkserver  # the same one has learned more
    assert has_torch(forkserver)
    assert has_torch(second)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
@pytest.mark.usefixtures("own_forkserver")
def test_what_engines_preload_starts_no_thread(start: Callable[..., ForkedRank]) -> None:
    from harness import plugins

    case = Case("c", "nano", Size(128, 128), ("p",))
    modules = plugins.load("engines", "spatial").preload(RunSpec(case, "spatial", "", "w", "test", cache="cache-dit"))
    rank = start(*modules)
    ready(rank)
    forkserver = parent(rank.pid or 0)
    assert has_torch(forkserver)
    assert forkserver.num_threads() == 1
    assert "Traceback" not in rank.log.read_text()


@pytest.mark.usefixtures("own_forkserver")
def test_another_environment_is_another_forkserver(
    start: Callable[..., ForkedRank], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = start()
    before = parent(ready(old)).pid
    monkeypatch.setenv("SOME_SWITCH", "on")
    new = psutil.Process(ready(start()))
    assert new.environ()["SOME_SWITCH"] == "on"
    assert parent(new.pid).pid != before
    old.send(Order("fake"))  # the old one's ranks serve on
    assert until(lambda: bool(old.read()))
    old.kill()
    assert until(lambda: is_gone(before))  # and it ends with the last of them


def test_a_rank_has_one_thread_and_no_hub(start: Callable[..., ForkedRank]) -> None:
    found = psutil.Process(ready(start())).environ()
    assert (found["OMP_NUM_THREADS"], found["HF_HUB_OFFLINE"]) == ("1", "1")


def test_the_exit_code_of_a_rank_is_known_though_it_is_no_child(start: Callable[..., ForkedRank]) -> None:
    rank = start()
    pid = ready(rank)
    assert rank.poll() is None
    os.kill(pid, signal.SIGABRT)
    assert rank.wait() == -signal.SIGABRT
    assert rank.poll() == -signal.SIGABRT
    assert rank.read() is None


def test_the_number_of_a_rank_that_has_ended_is_left_alone(
    start: Callable[..., ForkedRank], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By now it may be another process's; its session is looked through once, for what its engine has started."""
    rank = start()
    pid = ready(rank)
    os.kill(pid, signal.SIGABRT)
    rank.wait()
    kill, killpg = os.kill, os.killpg
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: [sent.append(("rank", pid)), kill(pid, number)])
    monkeypatch.setattr(os, "killpg", lambda pid, number: [sent.append(("session", pid)), killpg(pid, number)])
    rank.kill()
    rank.kill()
    assert sent == [("session", pid)]


@pytest.mark.usefixtures("own_forkserver")
def test_a_forkserver_that_is_killed_is_replaced(start: Callable[..., ForkedRank]) -> None:
    first = start()
    forkserver = parent(ready(first))
    forkserver.kill()
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert parent(ready(start())).pid != forkserver.pid


@pytest.mark.usefixtures("own_forkserver")
@pytest.mark.skipif(sys.platform != "linux", reason="the state of a process is read from /proc")
def test_a_rank_ends_though_its_forkserver_is_stopped(
    start: Callable[..., ForkedRank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.execution.rank.FORKSERVER_GRACE_MS", 300)
    rank = start()
    pid = ready(rank)
    forkserver = parent(pid)
    forkserver.suspend()
    killing = threading.Thread(target=rank.kill, daemon=True)
    killing.start()
    killing.join(30)
    assert not killing.is_alive()
    assert is_gone(pid)
    assert rank.lost == f"its forkserver, process {forkserver.pid}, is in state T (stopped)"
    assert parent(ready(start())).pid != forkserver.pid


@pytest.mark.usefixtures("own_forkserver")
def test_a_rank_that_is_closed_before_it_was_forked_ends_at_once(tmp_path: Path) -> None:
    rank = ForkedRank(tmp_path / "rank.log", ("torch",))  # importing it takes a second
    assert rank.pid is None
    rank.kill()
    rank.close()
    forkserver = Forkserver.here(tmp_path / "rank.log").process.pid
    later = ForkedRank(tmp_path / "later.log", ())
    ready(later)  # forked after the first
    assert until(lambda: [child.pid for child in psutil.Process(forkserver).children()] == [later.pid])
    later.kill()
    later.close()


@pytest.mark.parametrize("suspended", [[], [0], [1], [0, 1, 2]], ids=["none", "forkserver", "rank", "all"])
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone signals the end of a parent process")
def test_everything_ends_with_a_parent_that_is_killed(tmp_path: Path, suspended: list[int]) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from harness.execution.group import WorkerGroup\n"
        "from harness.execution.group_key import GroupKey\n"
        "group = WorkerGroup(GroupKey(2, 'cpu', 'float32', ''), Path(sys.argv[1]))\n"
        "group.ensure('fake')\n"
        "print(group._ranks[0]._forkserver.process.pid, *[rank.pid for rank in group._ranks], flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        for index in suspended:
            psutil.Process(pids[index]).suspend()
        process.kill()
    assert until(lambda: all(map(is_gone, pids)))


def test_groups_start_again_from_the_same_forkserver(tmp_path: Path) -> None:
    group = WorkerGroup(GroupKey(1, "cpu", "float32", ""), tmp_path)
    forkservers = []
    for _ in range(2):
        group.ensure("fake")
        forkservers.append([parent(rank.pid or 0).pid for rank in group._ranks if isinstance(rank, ForkedRank)])
        group.kill()
    assert forkservers[0] == forkservers[1]
