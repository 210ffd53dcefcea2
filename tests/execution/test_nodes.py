"""Groups over several nodes: two nodes on one machine, each with an agent of torchrun and processes of its own."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

from harness import models
from harness.errors import InfrastructureError
from harness.execution import nodes as nodes_module
from harness.execution import wire
from harness.execution.group import Aborted, GroupKey, WorkerGroup
from harness.execution.node import Node
from harness.execution.nodes import Nodes
from harness.execution.remote import RemoteRank
from harness.execution.reservation import Need
from harness.execution.wire import TOKEN, Endpoint
from harness.planning import cut
from harness.types import Case, FailureKind, Run, RunSpec, Size
from tests.waiting import DEADLINE_S, until

SECRET = "a token of many letters"


def spec(fault: str | None = None, step_s: float = 0.0, steps: int = 2, timeout_s: float = 60.0) -> RunSpec:
    case = Case("c", "fake", Size(144, 144), ("waves",), steps=steps, timeout_s=timeout_s)
    plan = cut.cut(case.size, 2, "h")
    return RunSpec(case, "fake", "", "fake", "test", ulysses=2, fault=fault, options={"step_s": step_s}, plan=plan)


NEED = Need.of([spec()], "a test")


def join(endpoint: Endpoint, num_nodes: int = 2, token: str = SECRET) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "harness.cli", "join", "--rdzv-endpoint", str(endpoint)),
            *("--nnodes", str(num_nodes), "--nproc-per-node", "1"),
        ],
        env={**os.environ, TOKEN: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def head() -> Iterator[Nodes]:
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    with Nodes(endpoint, num_nodes=2, num_ranks=1, token=SECRET.encode()) as nodes:
        yield nodes


@pytest.fixture
def member(head: Nodes) -> Iterator[subprocess.Popen[str]]:
    process = join(head.endpoint)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def group(head: Nodes, tmp_path: Path) -> Iterator[WorkerGroup]:
    made = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs", elsewhere=partial(head.start, NEED))
    yield made
    made.kill()


def processes(word: str) -> set[psutil.Process]:
    """Living processes of this test whose command line holds a word; those of other runs hold other ports."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if word in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
    return found


def ranks_of(head: Nodes) -> list[psutil.Process]:
    """Ranks of a group over nodes: each is forked from the template of its outpost."""
    outposts = processes(f"harness.execution.outpost {head.endpoint}") - processes("torch.distributed.run")
    ranks = [rank for outpost in outposts for rank in outpost.children(recursive=True) if rank.name() == "sp-rank"]
    assert len(ranks) == 2
    return ranks


def drawn_alike(first: Path, second: Path) -> bool:
    one, other = (load_file(folder / "latents.safetensors") for folder in (first, second))
    same = all(np.array_equal(one[name], other[name]) for name in one)
    return same and np.array_equal(*(np.asarray(Image.open(folder / "image-0.png")) for folder in (first, second)))


def fill(picture: Path, step: int) -> None:
    """Let there be no room for a picture."""
    if step == 1:
        picture.symlink_to("/dev/full")


@pytest.mark.usefixtures("member")
def test_a_group_over_two_nodes_is_like_one_of_this_machine(head: Nodes, group: WorkerGroup, tmp_path: Path) -> None:
    seen: list[int] = []
    run = group.run(spec(), tmp_path / "run", seen.append)
    assert (run.outcome, run.failure, run.images, seen) == ("ok", None, ("image-0.png",), [1, 2])
    assert len(run.peak_memory_bytes) == 2
    here = WorkerGroup(GroupKey.of(spec()), tmp_path / "local")
    here.run(spec(), tmp_path / "reference")
    here.kill()
    assert drawn_alike(tmp_path / "run", tmp_path / "reference")
    assert [rank.node for rank in group._ranks if isinstance(rank, RemoteRank)].count("") == 1
    for environment in map(psutil.Process.environ, ranks_of(head)):
        assert environment["MASTER_ADDR"] == "127.0.0.1"  # where the nodes meet, not what the machine calls itself
        assert TOKEN not in environment

    hung = group.run(spec(fault="hang", timeout_s=1), tmp_path / "hung")
    assert hung.failure is not None
    assert (hung.outcome, hung.failure.kind) == ("timeout", FailureKind.HUNG)
    for stacks in hung.failure.detail.removeprefix("--- rank 0").split("--- rank 1"):
        assert "in _misbehave" in stacks
    word = f"harness.execution.outpost {head.endpoint}"
    assert until(lambda: not processes(word))  # the group was killed everywhere

    failed = group.run(spec(fault="crash"), tmp_path / "crashed")  # and starts anew
    assert failed.failure is not None
    assert failed.failure.message.startswith("rank 1 raised RuntimeError")
    assert "Traceback" in failed.failure.detail

    building = tmp_path / "runs" / ".digest.building"
    with pytest.raises(InfrastructureError) as caught:  # the first step comes half a second before the picture
        group.run(spec(step_s=0.5), tmp_path / "runs" / "digest", partial(fill, building / "image-0.tif"))
    expected = f"{tmp_path / 'runs' / 'digest'}: a run cannot be written (No space left on device); mend that, "
    assert str(caught.value).startswith(expected)  # as on one machine: it is the head's disk
    assert list((tmp_path / "runs").iterdir()) == []

    group.run(spec(), tmp_path / "before")
    for rank in ranks_of(head):
        resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    # Its files go to a folder on its own node first: that one is named.
    with pytest.raises(InfrastructureError, match=r"sp-harness-\w+/files: a run cannot be written \(File too large\)"):
        group.run(spec(), tmp_path / "after")
    group.kill()
    assert until(lambda: all(launch.is_over for launch in head._launches.values()))  # and none is kept for ever


def test_a_node_that_is_killed_costs_what_needs_it_and_no_more(
    head: Nodes, group: WorkerGroup, member: subprocess.Popen[str], tmp_path: Path
) -> None:
    def kill_node(step: int) -> None:
        if step == 1:
            agents = psutil.Process(member.pid).children()
            assert agents
            for process in (psutil.Process(member.pid), *agents):
                process.send_signal(signal.SIGKILL)

    run = group.run(spec(step_s=0.5, steps=100, timeout_s=60), tmp_path / "run", kill_node)
    assert run.failure is not None
    assert (run.outcome, run.failure.kind) == ("error", FailureKind.KILLED)
    assert run.failure.kind.infrastructure
    assert "was lost: node" in run.failure.message
    assert until(lambda: not processes(f"harness.execution.outpost {head.endpoint}"))

    later = group.run(spec(), tmp_path / "later")
    assert later.failure is not None
    assert (later.failure.kind, later.failure.kind.infrastructure) == (FailureKind.LAUNCH, True)
    assert "2 ranks need more than 1 of 2 nodes" in later.failure.message

    back = join(head.endpoint)  # a node may come back
    try:
        assert back.stdout is not None
        assert "joined as" in back.stdout.readline()
        assert group.run(spec(), tmp_path / "again").outcome == "ok"
    finally:
        group.kill()
        head.close()
        assert back.wait(DEADLINE_S) == 0  # it ends with the head
        back.communicate()


@pytest.mark.usefixtures("member")
def test_abort_ends_the_ranks_everywhere(head: Nodes, group: WorkerGroup, tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        if step == 1:
            threading.Thread(target=group.abort).start()

    with pytest.raises(Aborted):
        group.run(spec(step_s=0.1, steps=100), tmp_path / "runs" / "run", interrupt)
    assert list((tmp_path / "runs").iterdir()) == []
    assert until(lambda: not processes(f"harness.execution.outpost {head.endpoint}"))


def test_a_node_that_does_not_fit_is_told_why(head: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "source", lambda: "another")
    endings = []
    for process in (join(head.endpoint, num_nodes=3), join(head.endpoint), join(head.endpoint, token="x" * 20)):
        output, _ = process.communicate(timeout=DEADLINE_S)
        endings.append((process.returncode, output.strip()))
    assert endings[0][0] == 2
    assert "the head refuses this node: --nnodes is 3 here and 2 on the head" in endings[0][1]
    assert endings[1][0] == 2
    assert "is not what the head has; install the same on all nodes" in endings[1][1]
    assert endings[2][0] == 3
    assert "token is not the one known there" in endings[2][1]


@pytest.fixture
def caches(head: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Caches of the head and of a node that has joined; each has the model of random weights."""
    here, there = tmp_path / "head", tmp_path / "node"
    monkeypatch.setenv("SP_HARNESS_CACHE", str(here))
    shutil.copytree(models.build("nano-random").parent, there / "models")
    return here, there


def test_a_node_with_other_weights_draws_nothing(
    head: Nodes, caches: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = caches
    model = models.resolve("nano-random")
    asked = replace(spec(), model_path=model.path, weights=model.weights)
    asked = replace(asked, case=replace(asked.case, model="nano-random"))
    (weights,) = (there / "models").glob("*/vae/*.safetensors")
    planned = weights.read_bytes()
    weights.write_bytes(planned[:-1] + bytes([planned[-1] ^ 1]))
    others = models.checkpoint.digest(weights.parent.parent, tmp_path / "memo")

    monkeypatch.setenv("SP_HARNESS_CACHE", str(there))
    member = join(head.endpoint)
    monkeypatch.setenv("SP_HARNESS_CACHE", str(here))
    need = Need.of([asked], "a test")
    group = WorkerGroup(GroupKey.of(asked), tmp_path / "logs", elsewhere=partial(head.start, need))
    try:
        run = group.run(asked, tmp_path / "run")
        assert run.failure is not None
        assert (run.failure.kind, run.failure.kind.infrastructure) == (FailureKind.LAUNCH, True)
        folder = weights.parent.parent
        assert run.failure.message == (
            f"fake did not start: node {socket.gethostname()}: its weights of nano-random are others "
            f"({others[:16]} in {folder}, planned {model.weights[:16]} in {model.path}); "
            f"remove {folder}, it is then built anew"
        )
        assert not list((tmp_path / "logs").glob("rank-*"))  # nothing was started on either node

        weights.write_bytes(planned)
        assert group.run(asked, tmp_path / "later").failure == run.failure  # a batch of runs has asked once
        head.release()
        assert group.run(asked, tmp_path / "again").outcome == "ok"
        assert [rank.model_path for rank in group._ranks] == ["", str(folder)]  # each has its own
    finally:
        group.kill()
        head.close()
        output, _ = member.communicate(timeout=DEADLINE_S)
    assert "its weights of nano-random are others" in output


def test_a_head_that_is_killed_ends_its_nodes(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from harness.execution.group import Aborted, GroupKey, WorkerGroup\n"
        "from harness.execution.nodes import Nodes\n"
        "from harness.execution.reservation import Need\n"
        "from harness.execution.wire import Endpoint\n"
        "need = Need(2, 'cpu', 'fake', None, '', 'fake', {}, 'a test')\n"
        f"nodes = Nodes(Endpoint.parse(sys.argv[1]), 2, 1, {SECRET.encode()!r})\n"
        "start = partial(nodes.start, need)\n"
        "WorkerGroup(GroupKey(2, 'cpu', 'float32', ''), Path(sys.argv[2]), elsewhere=start).ensure('fake')\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    member = join(endpoint)
    arguments = [sys.executable, "-c", program, str(endpoint), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(processes(f"harness.execution.outpost {endpoint}")) >= 2
        process.kill()
    output, _ = member.communicate(timeout=DEADLINE_S)
    assert member.returncode == 3
    assert "the head of the run is gone" in output
    assert until(lambda: not processes(f"harness.execution.outpost {endpoint}"))


def test_a_node_that_never_comes_is_waited_for_once(
    head: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "JOIN_TIMEOUT_S", 0.3)
    with pytest.raises(nodes_module.StartFailed, match=r"1 of 2 nodes \(waited 0.3 s for node 2 of 2\)"):
        head.start(NEED, tmp_path, (), (), lambda: True)
    monkeypatch.setattr(nodes_module, "JOIN_TIMEOUT_S", 600)
    answers = iter([True] * 3)  # who waits asks again and again whether it is wanted
    with pytest.raises(nodes_module.StartFailed, match="for node 2 of 2"):
        head.start(NEED, tmp_path, (), (), lambda: next(answers, False))


def test_a_caller_that_cannot_be_accepted_does_not_close_the_head(head: Nodes) -> None:
    """As where descriptors run out for a moment."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as early:  # it has its descriptor already
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            early.connect((head.endpoint.host, head.endpoint.port))
            time.sleep(2 * nodes_module.POLL_S)  # it tries in vain, or has not yet: both must end well
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with contextlib.closing(wire.call(head.endpoint, SECRET.encode(), DEADLINE_S)) as line:
        line.send({"name": "late", "num_ranks": 1, "num_nodes": 2, "source": nodes_module.source()})
        assert line.receive() == ({"welcome": True}, b"")


def test_a_node_that_goes_before_it_is_welcomed_is_not_counted(head: Nodes) -> None:
    found: list[wire.Line | None] = []
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    with wire.listen(endpoint) as listening:
        thread = threading.Thread(target=lambda: found.append(wire.admit(listening.accept()[0], b"token")))
        thread.start()
        with contextlib.closing(wire.call(endpoint, b"token", DEADLINE_S)):
            thread.join()
            assert found[0] is not None
            found[0].end()
            node = Node("b", 1, found[0], head._changed)
            with pytest.raises(OSError, match="ended"):
                head._serve(node, {"num_nodes": 2, "source": nodes_module.source()})
            found[0].close()
    assert head._joined == []


def test_a_node_that_speaks_another_language_is_lost(head: Nodes) -> None:
    with contextlib.closing(wire.call(head.endpoint, SECRET.encode(), DEADLINE_S)) as line:
        line.send({"name": "b", "num_ranks": 1, "num_nodes": 2, "source": nodes_module.source()})
        assert line.receive() == ({"welcome": True}, b"")
        line.send({"word": "what"})
        assert until(lambda: head._lost == "node b")
    assert head._joined == []


def test_other_code_beside_the_ranks_is_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    known = nodes_module.source()
    assert known.startswith(f"{sys.version_info.major}.{sys.version_info.minor} ")
    for file in nodes_module.SPOKEN_HERE:
        assert (Path(nodes_module.__file__).parent / file).is_file()
    monkeypatch.setattr(nodes_module, "SPOKEN_HERE", nodes_module.SPOKEN_HERE[1:])
    assert nodes_module.source() != known


def test_ranks_are_dealt_to_the_head_first() -> None:
    joined = [Node(*known, None, None) for known in (("b", 4), ("c", 2))]  # type: ignore[arg-type]
    dealt = [
        [(node.name if node else "head", share) for node, share in nodes_module._deal(ranks, 2, joined)]
        for ranks in (3, 8, 9)
    ]
    assert dealt[0] == [("head", 2), ("b", 1)]
    assert dealt[1] == [("head", 2), ("b", 4), ("c", 2)]
    assert sum(share for _, share in dealt[2]) == 8  # one is left without a slot


def test_too_few_slots_are_said_at_once(tmp_path: Path, head: Nodes) -> None:
    head.num_nodes = 1  # nobody else is expected
    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs", elsewhere=partial(head.start, NEED))
    run: Run = group.run(spec(), tmp_path / "run")
    assert run.failure is not None
    assert run.failure.kind is FailureKind.LAUNCH
    assert run.failure.message == "fake did not start: 2 ranks need as many slots; the 1 nodes have 1"
