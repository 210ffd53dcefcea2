"""GPUs of joined nodes: a node in a process of its own, real locks; only the lists of GPUs are given."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from harness.execution import gpus, locks, wire
from harness.execution import nodes as nodes_module
from harness.execution.gpus import Gpu, Lease
from harness.execution.node import Node
from harness.execution.nodes import Nodes
from harness.execution.pool import Event, Finished, Holding, Pool, Started, Stepped, Waiting
from harness.execution.rank import StartFailed
from harness.execution.reservation import Need
from harness.execution.wire import TOKEN, Endpoint
from harness.planning import cut
from harness.types import Case, FailureKind, RunSpec, Size
from tests.waiting import DEADLINE_S, until

SECRET = "a token of many letters"

COMMAND = """
import sys
from pathlib import Path
from harness.execution import gpus
from harness.cli.app import main
from harness.execution.gpus import Gpu
devices.LOCKS, names = Path(sys.argv.pop(1)), sys.argv.pop(1).split(",")
devices.visible = lambda device: tuple(Gpu(index, name) for index, name in enumerate(names))
main()
"""

MATRIX = """
schema = 1
name = "fakes"
model = "fake"
steps = 2
golden = "off"
[[case]]
size = "128x128"
prompt = "waves"
[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
options = { step_s = 1.0 }
"""

HOLD = """
import sys
from pathlib import Path
from harness.execution import locks
held = [locks.attempt(Path(path), "reports/other") for path in sys.argv[1:]]
assert all(held)
print("held", flush=True)
sys.stdin.read()
"""


def spec(steps: int = 1, step_s: float = 0.0) -> RunSpec:
    case = Case("c", "fake", Size(128, 128), ("waves",), steps=steps)
    plan = cut.cut(case.size, 2, "h")
    return RunSpec(case, "fake", "", "fake", "test", ulysses=2, options={"step_s": step_s}, plan=plan)


def options(endpoint: object) -> tuple[object, ...]:
    return ("--nnodes", 2, "--rdzv-endpoint", endpoint, "--nproc-per-node", 1)


class Room:
    """The locks of this machine, and the processes that take them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a program; wait for its first word."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, TOKEN: SECRET},
        )
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(("held", "joined as", "groups of more than 1 ranks wait"))
        return process

    def join(self, endpoint: object) -> subprocess.Popen[str]:
        """Another node, with two GPUs and one rank."""
        return self.command("GPU-cc,GPU-dd", "join", *options(endpoint))

    def command(self, gpus: str, *arguments: object) -> subprocess.Popen[str]:
        """The command line on a machine with these GPUs."""
        return self.start(COMMAND, self.folder, gpus, *arguments)

    def other(self, *names: str) -> subprocess.Popen[str]:
        """Another run that holds GPUs."""
        return self.start(HOLD, *(self.folder / f"{name}.lock" for name in names))

    def is_free(self, name: str) -> bool:
        held = locks.attempt(self.folder / name, "a look")
        if held:
            held.release()
        return held is not None

    def all_free(self) -> bool:
        return all(self.is_free(f"GPU-{name}.{what}") for name in ("cc", "dd") for what in ("lock", "line"))


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(gpus, "LOCKS", folder)
    monkeypatch.setattr(gpus, "visible", lambda device: (Gpu(0, "GPU-aa"),))
    made = Room(folder)
    yield made
    for process in made.started:
        with process:
            process.kill()


@pytest.fixture
def head() -> Iterator[Nodes]:
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    with Nodes(endpoint, num_nodes=2, num_ranks=1, token=SECRET.encode()) as nodes:
        yield nodes


@pytest.fixture
def member(head: Nodes, room: Room) -> subprocess.Popen[str]:
    return room.join(head.endpoint)


@pytest.fixture
def pool(head: Nodes, tmp_path: Path) -> Iterator[Pool]:
    with Pool(tmp_path / "run" / "logs", nodes=head) as made:
        yield made


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.usefixtures("member")
def test_a_node_holds_a_gpu_that_is_free_while_ranks_run_there(room: Room, pool: Pool, tmp_path: Path) -> None:
    room.other("GPU-cc")  # the one that a rank would take by its place
    events = []
    for event in pool.execute([spec()], lambda run: tmp_path / run.digest):
        if isinstance(event, Stepped):
            (group,) = pool._groups.values()
            assert [rank.device_index for rank in group._ranks] == [0, 1]
            assert not room.is_free("GPU-dd.lock")
            purpose = f"({tmp_path / 'run'} on {socket.gethostname()})"  # of a node the head's run is what users know
            assert purpose in locks.holder(room.folder / "GPU-dd.lock")
        events.append(event)
    assert [type(event) for event in events] == [Holding, Started, Stepped, Finished, Holding]
    assert until(lambda: room.is_free("GPU-dd.lock"))


@pytest.mark.usefixtures("member")
def test_who_waits_for_the_gpu_of_a_node_says_for_whom_and_goes_on(room: Room, pool: Pool, tmp_path: Path) -> None:
    other = room.other("GPU-cc", "GPU-dd")
    events = pool.execute([spec()], lambda run: tmp_path / run.digest)
    waiting = next(events)
    assert isinstance(waiting, Waiting)
    expected = f"waiting for 1 of these GPUs: GPU 0: process {other.pid} (reports/other), since "
    assert waiting.message.startswith(f"node {socket.gethostname()}: {expected}")
    assert not (tmp_path / "run").exists()  # no rank has been started, here or there
    other.kill()
    (done,) = [event for event in events if isinstance(event, Finished)]
    assert done.run.outcome == "ok"
    assert until(room.all_free)


def test_the_wait_is_on_the_terminal_and_in_the_journal_and_a_killed_head_holds_nothing(
    room: Room, tmp_path: Path
) -> None:
    """By the command line, on both nodes."""
    (tmp_path / "fakes.toml").write_text(MATRIX)
    endpoint = f"127.0.0.1:{wire.free_port('127.0.0.1')}"
    other = room.other("GPU-cc", "GPU-dd")
    head = room.command("GPU-aa", "run", tmp_path / "fakes.toml", "--out", tmp_path / "runs", *options(endpoint))
    member = room.join(endpoint)
    expected = f"node {socket.gethostname()}: waiting for 1 of these GPUs: GPU 0: process {other.pid} (reports/other)"
    assert head.stdout is not None
    assert any(line.startswith(expected) for line in head.stdout)
    (journal,) = tmp_path.glob("runs/*/journal.jsonl")
    assert expected in journal.read_text()
    assert member.stdout is not None
    assert member.stdout.readline().startswith("waiting for 1 of these GPUs")  # who looks there sees it, too

    other.kill()
    other.wait()
    # Either: who looks holds the lock for a moment, and a node that meets it takes the next GPU.
    assert until(lambda: not (room.is_free("GPU-cc.lock") and room.is_free("GPU-dd.lock")))
    head.kill()
    head.wait()
    assert member.wait(DEADLINE_S) == 3
    assert room.all_free()
    assert room.is_free("GPU-aa.lock")


@pytest.mark.usefixtures("member")
def test_who_gives_up_waiting_leaves_nothing_held(room: Room, pool: Pool, tmp_path: Path) -> None:
    other = room.other("GPU-cc", "GPU-dd")
    events = pool.execute([spec()], lambda run: tmp_path / run.digest)
    assert isinstance(next(events), Waiting)
    assert not room.is_free("GPU-cc.line")
    with closing(events):
        pass
    assert until(lambda: room.is_free("GPU-cc.line"))
    other.kill()
    other.wait()
    assert until(room.all_free)


def test_gpus_of_a_node_that_was_killed_are_free(
    room: Room, pool: Pool, member: subprocess.Popen[str], tmp_path: Path
) -> None:
    runs = []
    for event in pool.execute([spec(steps=100, step_s=0.5)], lambda run: tmp_path / run.digest):
        if isinstance(event, Stepped) and member.poll() is None:
            assert not room.is_free("GPU-cc.lock")
            member.send_signal(signal.SIGKILL)
            member.wait()
            assert room.all_free()  # the kernel gives them back, before anybody else can know
        if isinstance(event, Finished):
            runs.append(event.run)
    (run,) = runs
    assert run.failure is not None
    assert run.failure.kind == FailureKind.KILLED


def test_a_node_that_is_lost_while_it_is_waited_for_is_not_waited_for(
    room: Room, pool: Pool, member: subprocess.Popen[str], tmp_path: Path
) -> None:
    room.other("GPU-cc", "GPU-dd")
    runs = []
    for event in pool.execute([spec()], lambda run: tmp_path / run.digest):
        if isinstance(event, Waiting):
            member.kill()
        if isinstance(event, Finished):
            runs.append(event.run)
    (run,) = runs
    assert run.failure is not None
    assert (run.failure.kind, run.failure.kind.infrastructure) == (FailureKind.LAUNCH, True)
    assert "2 ranks need more than 1 of 2 nodes" in run.failure.message


@pytest.mark.usefixtures("member")
def test_a_group_that_starts_anew_does_not_wait_for_others(room: Room, head: Nodes, tmp_path: Path) -> None:
    """Its other nodes hold GPUs by then: as where a node was lost, and another has come."""
    assert until(lambda: bool(head._joined))
    other = room.other("GPU-cc", "GPU-dd")
    need = Need.of([spec()], "a test")
    with pytest.raises(Exception, match=f"waiting for 1 of these GPUs: GPU 0: process {other.pid}"):
        head.start(need, tmp_path, (), (), lambda: True)
    other.kill()
    other.wait()
    assert until(room.all_free)


def test_a_node_holds_for_one_group_at_a_time(room: Room, head: Nodes, member: subprocess.Popen[str]) -> None:
    assert until(lambda: bool(head._joined))
    (node,) = head._joined
    need = Need.of([spec()], "a test")
    for num_ranks, held in ((1, ["cc"]), (2, ["cc", "dd"]), (1, ["cc", "dd"])):  # what is held is enough for one
        node.ensure(need, num_ranks, lambda: True)
        assert [name for name in ("cc", "dd") if not room.is_free(f"GPU-{name}.lock")] == held
    node.ensure(Need.of([spec(steps=7)], "another"), 1, lambda: True)
    assert until(lambda: room.is_free("GPU-dd.lock"))
    head.release()
    assert until(room.all_free)
    assert member.poll() is None


class Told:
    """In place of a node, or of this node's lease: who is asked in which order is what counts here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_ranks = 1
        self.problem = "it cannot" if name == "gpu-8" else ""

    def hold(self, *_: object) -> Iterator[str]:
        yield self.name

    take = hold


def test_machines_are_asked_in_the_order_of_their_names(head: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs on the same machines neither holds what the other waits for while it waits for what that holds."""
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-2")
    head._joined = [cast(Node, Told("gpu-3")), cast(Node, Told("gpu-1"))]
    need = Need(3, "cpu", "fake", None, "", "fake", {}, "a test")
    assert list(head.hold(need, cast(Lease, Told("gpu-2")))) == ["gpu-1", "gpu-2", "gpu-3"]
    head._joined = [cast(Node, Told("gpu-9")), cast(Node, Told("gpu-8"))]
    assert list(head.hold(need, cast(Lease, Told("gpu-2")))) == ["gpu-2", "gpu-8"]  # for a group that will not be
    head._joined = []


def test_for_a_group_without_its_nodes_no_gpu_is_waited_for(
    head: Nodes, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recorded at once, whoever has the head's GPU; a node that joins then finds that nothing was held for it."""
    monkeypatch.setattr(nodes_module, "JOIN_TIMEOUT_S", 0)
    room.other("GPU-aa")
    problem = "2 ranks need more than 1 of 2 nodes (waited 0 s for node 2 of 2)"
    with Pool(tmp_path / "run" / "logs", nodes=head) as pool:
        events = pool.execute([spec()], lambda run: tmp_path / run.digest)
        assert isinstance(next(events), Started)
        (finished,) = events
        assert isinstance(finished, Finished)
        assert finished.run.failure is not None
        assert finished.run.failure.kind == FailureKind.LAUNCH
        assert finished.run.failure.message == f"fake did not start: {problem}"

        room.join(head.endpoint)
        assert until(lambda: bool(head._joined))
        need = Need.of([spec()], str(tmp_path / "run"))
        with pytest.raises(StartFailed, match=re.escape(problem)):
            head.start(need, tmp_path, (), (), lambda: True)
        later = pool.execute([spec()], lambda run: tmp_path / "later")
        assert isinstance(next(later), Waiting)  # now there will be a group
