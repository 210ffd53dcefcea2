"""Worker groups with real processes: what a run leaves behind, however its ranks end."""

import itertools
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import codec
from harness.environments import child_process
from harness.errors import InfrastructureError
from harness.execution import failures
from harness.execution.forkserver import Forkserver
from harness.execution.group import Aborted, WorkerGroup
from harness.execution.group_key import GroupKey
from harness.execution.rank import ForkedRank, fork_ranks
from harness.planning import cut
from harness.types import Case, FailureKind, Run, RunSpec, Size
from harness.worker.protocol import Message, Raised, Ready
from tests.waiting import until

OnStep = Callable[[int], None]


FINISH = ", then finish with: sp-harness run --resume RUN"
MORE_MEMORY = f"; free memory or take a machine with more{FINISH}"
MAKE_ROOM = f"; make room on that disk{FINISH}"


def spec(world_size: int = 2, fault: str | None = None, step_s: float = 0.0, **case: Any) -> RunSpec:
    drawn = Case("c", "fake", Size(144, 144), ("waves",), **{"steps": 2, **case})
    return RunSpec(
        drawn,
        "fake",
        "",
        "fake",
        "test",
        ulysses=world_size,
        fault=fault,
        options={"step_s": step_s},
        plan=cut.cut(drawn.size, world_size, "h"),
    )


@pytest.fixture
def group(tmp_path: Path) -> Iterator[WorkerGroup]:
    made = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs")
    yield made
    made.kill()


def pids(group: WorkerGroup) -> list[int]:
    return [rank.pid or 0 for rank in group._ranks if isinstance(rank, ForkedRank)]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def on_first(action: Callable[[], None]) -> OnStep:
    """Act once, when the first denoise step is over: in the middle of a run."""
    done = threading.Event()

    def on_step(step: int) -> None:
        if not done.is_set():
            done.set()
            action()

    return on_step


def test_a_run_appears_whole_and_its_description_is_written_last(group: WorkerGroup, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digest"
    seen: list[tuple[int, bool]] = []
    run = group.run(spec(), folder, lambda step: seen.append((step, folder.exists())))
    assert (run.outcome, run.failure, run.images) == ("ok", None, ("image-0.png",))
    assert seen == [(1, False), (2, False)]
    assert [path.name for path in folder.parent.iterdir()] == ["digest"]
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(written) == {"image-0.png", "latents.safetensors", "run.json"}
    assert max(written.values()) == written["run.json"]
    assert codec.read_json(folder / "run.json", Run) == run
    assert len(run.peak_memory_bytes) == 2
    assert run.versions["numpy"]
    assert 0 < run.wall_s < 60


def test_ranks_lead_sessions_of_their_own_and_stay_between_runs(group: WorkerGroup, tmp_path: Path) -> None:
    group.run(spec(), tmp_path / "first")
    before = pids(group)
    assert [os.getsid(pid) for pid in before] == before
    group.run(spec(seed=1), tmp_path / "second")
    assert pids(group) == before
    group.kill()
    assert not any(map(is_alive, before))


@pytest.mark.parametrize(
    ("fault", "kind", "infrastructure"),
    [
        ("crash", FailureKind.RAISED, False),
        ("out-of-memory", FailureKind.OUT_OF_MEMORY, True),
        ("disk-full", FailureKind.DISK_FULL, True),
        ("descriptors", FailureKind.EXHAUSTED, True),
    ],
)
def test_a_rank_that_raises_is_named_and_the_group_goes_on(
    group: WorkerGroup, tmp_path: Path, fault: str, kind: FailureKind, infrastructure: bool
) -> None:
    folder = tmp_path / "run"
    run = group.run(spec(fault=fault), folder)
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank) == ("error", kind, 1)
    assert run.failure.kind.infrastructure is infrastructure
    assert run.failure.message.startswith("rank 1 raised ")
    assert run.failure.message.endswith(FINISH) is infrastructure
    assert "Traceback" in run.failure.detail
    assert "_misbehave" in run.failure.detail
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert codec.read_json(folder / "run.json", Run) == run
    assert group.run(spec(), tmp_path / "next").outcome == "ok"


def test_memory_that_runs_out_inside_nccl_is_known_by_what_nccl_printed(group: WorkerGroup, tmp_path: Path) -> None:
    """torch says no more than "unhandled cuda error"; what NCCL prints is in the log before that is raised."""
    run = group.run(spec(fault="nccl-out-of-memory"), tmp_path / "run")
    assert run.failure is not None
    assert (run.failure.kind, run.failure.rank) == (FailureKind.OUT_OF_MEMORY, 1)
    assert run.failure.message.startswith("rank 1: out of memory inside NCCL; rank 1 raised RuntimeError: NCCL Error 1")
    assert "NCCL WARN Cuda failure 2 'out of memory'" in run.failure.detail
    assert "Traceback" in run.failure.detail


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("enqueue.cc:1 NCCL WARN Cuda failure 2 'out of memory'", FailureKind.OUT_OF_MEMORY, MORE_MEMORY),
        ("shmutils.cc:7 NCCL WARN posix_fallocate failed : No space left on device", FailureKind.DISK_FULL, MAKE_ROOM),
    ],
)
def test_who_raises_first_in_a_collective_need_not_be_who_ran_out(
    group: WorkerGroup, tmp_path: Path, words: str, kind: FailureKind, remedy: str
) -> None:
    group.run(spec(), tmp_path / "run")
    with group._ranks[1].log.open("a") as log:
        log.write(f"host:1:1 [1] {words}\n")
    raised = "RuntimeError: NCCL Error 1: unhandled cuda error"
    failure = failures.raised(group._ranks, 0, Raised(raised, "Traceback"))
    assert (failure.kind, failure.rank) == (kind, 1)
    assert failure.message == f"rank 1: {kind.value} inside NCCL; rank 0 raised {raised}{remedy}"
    assert failure.detail == f"--- rank 1\nhost:1:1 [1] {words}\nTraceback"


def test_a_hang_ends_with_the_time_limit_and_the_stacks_of_all_who_hang(group: WorkerGroup, tmp_path: Path) -> None:
    run = group.run(spec(fault="hang", timeout_s=1), tmp_path / "run")
    assert run.failure is not None
    assert (run.outcome, run.failure.kind) == ("timeout", FailureKind.HUNG)
    assert not run.failure.kind.infrastructure
    assert run.failure.message == "no answer within 1 s from ranks 0, 1"
    first, second = run.failure.detail.removeprefix("--- rank 0").split("--- rank 1")
    for stacks in (first, second):
        assert "most recent call first" in stacks
        assert "in _misbehave" in stacks
    assert group.run(spec(), tmp_path / "next").outcome == "ok"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the state of a process is read from /proc")
def test_a_rank_that_is_stopped_is_named_and_ended(group: WorkerGroup, tmp_path: Path) -> None:
    """Its peer waits for it, healthy, as in a collective; only one of them is to blame."""
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(pids(group)[1])
        os.kill(stopped[0], signal.SIGSTOP)

    run = group.run(spec(step_s=0.1, steps=100, timeout_s=1), tmp_path / "run", on_first(stop))
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank) == ("error", FailureKind.STOPPED, 1)
    assert run.failure.kind.infrastructure
    assert run.failure.message == (
        "no answer within 1 s from ranks 0, 1; rank 1 does not run: T (stopped); see what stopped it, then finish "
        "with: sp-harness run --resume RUN"
    )
    first, second = run.failure.detail.removeprefix("--- rank 0").split("--- rank 1")
    assert "in draw" in first
    assert second.strip() == "(prints nothing)"
    assert not is_alive(stopped[0])
    assert group.run(spec(), tmp_path / "next").outcome == "ok"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the state of a process is read from /proc")
def test_a_forkserver_that_is_stopped_is_named_and_replaced(
    group: WorkerGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_FORKSERVER_OF_ITS_OWN", str(tmp_path))
    group._logs.mkdir()
    forkserver = Forkserver.here(group._logs / "rank-0.log").process
    forkserver.send_signal(signal.SIGSTOP)
    assert until(lambda: bool(child_process.stopped(forkserver.pid)))
    with monkeypatch.context() as patch:
        patch.setattr("harness.execution.group.START_TIMEOUT_S", 1.0)
        run = group.run(spec(), tmp_path / "run")
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank) == ("error", FailureKind.STOPPED, 0)
    state = f"rank 0 does not run: its forkserver, process {forkserver.pid}, is in state T (stopped)"
    assert state in run.failure.message
    assert forkserver.wait() == -signal.SIGKILL
    assert group.run(spec(), tmp_path / "next").outcome == "ok"


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (signal.SIGKILL, FailureKind.KILLED, f"rank 1 was killed from outside (SIGKILL); see what killed it{FINISH}"),
        (signal.SIGTERM, FailureKind.KILLED, f"rank 1 was killed from outside (SIGTERM); see what killed it{FINISH}"),
        (signal.SIGSEGV, FailureKind.RAISED, "rank 1 crashed (SIGSEGV)"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_rank_that_dies_is_told_from_one_that_was_killed(
    group: WorkerGroup, tmp_path: Path, number: signal.Signals, kind: FailureKind, message: str
) -> None:
    slow = spec(step_s=0.1, steps=100)
    run = group.run(slow, tmp_path / "run", on_first(lambda: os.kill(pids(group)[1], number)))
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank, run.failure.message) == ("error", kind, 1, message)
    assert run.failure.kind.infrastructure is (kind == FailureKind.KILLED)
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in run.failure.detail
        assert "in draw" in run.failure.detail
    assert group.run(spec(), tmp_path / "next").outcome == "ok"


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ("std::bad_alloc", FailureKind.OUT_OF_MEMORY, f"rank 1 ran out of memory and crashed (SIGABRT){MORE_MEMORY}"),
        (
            "write failed: No space left on device",
            FailureKind.DISK_FULL,
            f"rank 1 found a disk full and crashed (SIGABRT){MAKE_ROOM}",
        ),
    ],
)
def test_a_crash_for_want_of_memory_or_room_is_no_fault_of_the_engine(
    group: WorkerGroup, tmp_path: Path, words: str, kind: FailureKind, message: str
) -> None:
    """A library below Python does not raise: it says so and aborts."""

    def abort() -> None:
        with group._ranks[1].log.open("a") as log:
            log.write(f"terminate called after throwing an instance of something: {words}\n")
        os.kill(pids(group)[1], signal.SIGABRT)

    run = group.run(spec(step_s=0.1, steps=100), tmp_path / "run", on_first(abort))
    assert run.failure is not None
    assert (run.failure.kind, run.failure.rank, run.failure.message) == (kind, 1, message)


def test_a_crash_long_after_memory_ran_out_is_the_engines(group: WorkerGroup, tmp_path: Path) -> None:
    def crash() -> None:
        with group._ranks[1].log.open("a") as log:
            log.write("CUDA out of memory; going on with a smaller batch\n" + "a word\n" * 20)
        os.kill(pids(group)[1], signal.SIGSEGV)

    run = group.run(spec(step_s=0.1, steps=100), tmp_path / "run", on_first(crash))
    assert run.failure is not None
    assert (run.failure.kind, run.failure.message) == (FailureKind.RAISED, "rank 1 crashed (SIGSEGV)")


def test_a_signal_without_a_name_is_told_by_its_number(group: WorkerGroup, tmp_path: Path) -> None:
    number = signal.SIGRTMIN + 6
    with pytest.raises(ValueError, match="is not a valid Signals"):
        signal.Signals(number)
    slow = spec(step_s=0.1, steps=100)
    run = group.run(slow, tmp_path / "run", on_first(lambda: os.kill(pids(group)[1], number)))
    assert run.failure is not None
    assert run.failure.message == f"rank 1 crashed (signal {number})"


def test_ranks_for_which_nothing_is_left_are_a_failed_launch(group: WorkerGroup, tmp_path: Path) -> None:
    """Descriptors run out in the middle of the start; when there are some again, the group starts."""
    group.run(spec(), tmp_path / "first")
    group.kill()
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir("/proc/self/fd")))
    free = (number for number in range(1 << 16) if number not in used)
    most = next(itertools.islice(free, 7, None))  # the first rank gets its own, the second does not
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        run = group.run(spec(), tmp_path / "second")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert run.failure is not None
    assert (run.failure.kind, run.failure.kind.infrastructure) == (FailureKind.LAUNCH, True)
    assert run.failure.message.startswith("fake did not start: ranks cannot be started (Too many open files")
    assert "raise the limit of open files (ulimit -n)" in run.failure.message
    assert len(os.listdir("/proc/self/fd")) == before
    assert group.run(spec(), tmp_path / "third").outcome == "ok"


def test_a_folder_that_cannot_be_made_is_named(group: WorkerGroup, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match=r"file/run: a run cannot be written \(Not a directory\)"):
        group.run(spec(), tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
def test_a_rank_without_room_for_its_picture_ends_the_work(group: WorkerGroup, tmp_path: Path) -> None:
    """All that would follow could not be kept either."""
    folder = tmp_path / "run-folder" / "runs" / "digest"
    folder.parent.mkdir(parents=True)
    (tmp_path / "run-folder" / "plan.json").touch()
    building = folder.with_name(".digest.building")
    fill = on_first(lambda: (building / "image-0.png").symlink_to("/dev/full"))
    with pytest.raises(InfrastructureError) as caught:
        group.run(spec(step_s=0.5), folder, fill)  # there is half a second left to fill the disk in
    assert str(caught.value) == (
        f"{folder}: a run cannot be written (No space left on device); "
        f"mend that, then finish with: sp-harness run --resume {tmp_path / 'run-folder'}"
    )
    assert list(folder.parent.iterdir()) == []  # what there was of it makes room
    assert not pids(group)
    assert group.run(spec(), folder).outcome == "ok"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux")
@pytest.mark.parametrize(
    ("room", "steps"),
    [(lambda picture: picture // 2, 2), (lambda picture: picture - 1, 2), (lambda picture: picture, 20)],
    ids=["picture", "end of the picture", "latents"],
)
def test_whatever_a_rank_cannot_write_is_not_held_against_the_engine(
    group: WorkerGroup, tmp_path: Path, room: Callable[[int], int], steps: int
) -> None:
    """Latents are larger than a picture; pictures are written first."""
    group.run(spec(), tmp_path / "first")
    limit_bytes = room((tmp_path / "first" / "image-0.png").stat().st_size)
    resource.prlimit(pids(group)[0], resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    with pytest.raises(InfrastructureError, match=r"second: a run cannot be written \(File too large\); mend that"):
        group.run(spec(steps=steps), tmp_path / "second")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "logs"}


def test_a_rank_killed_between_two_runs_costs_the_next_one_only(group: WorkerGroup, tmp_path: Path) -> None:
    group.run(spec(), tmp_path / "first")
    os.kill(pids(group)[0], signal.SIGKILL)
    failed = group.run(spec(), tmp_path / "second")
    assert failed.failure is not None
    assert failed.failure.kind.infrastructure
    assert group.run(spec(), tmp_path / "third").outcome == "ok"


def test_abort_leaves_neither_folder_nor_process_nor_rendezvous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs")
    ranks: list[int] = []

    def interrupt() -> None:
        ranks.extend(pids(group))
        threading.Thread(target=group.abort).start()

    with pytest.raises(Aborted):
        group.run(spec(step_s=0.1, steps=100), tmp_path / "runs" / "run", on_first(interrupt))
    assert list((tmp_path / "runs").iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert len(ranks) == 2
    assert not any(map(is_alive, ranks))


def test_aborting_a_group_at_rest_cleans_up_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs")
    group.run(spec(), tmp_path / "run")
    ranks = pids(group)
    assert list(temporary.iterdir())
    group.abort()
    assert list(temporary.iterdir()) == []
    assert not any(map(is_alive, ranks))
    with pytest.raises(Aborted):  # what was aborted does not start again
        group.run(spec(), tmp_path / "late")
    assert not (tmp_path / "late").exists()
    assert list(temporary.iterdir()) == []


def test_a_model_that_does_not_load_is_a_failed_launch(tmp_path: Path) -> None:
    """The folder was whole when the matrix was planned and is not any more."""
    broken = RunSpec(Case("c", "x", Size(128, 128), ("p",)), "diffusers", str(tmp_path / "gone"), "w", "test")
    group = WorkerGroup(GroupKey.of(broken), tmp_path / "logs")
    run = group.run(broken, tmp_path / "run")
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank) == ("error", FailureKind.LAUNCH, 0)
    assert run.failure.kind.infrastructure
    assert run.failure.message.startswith("diffusers did not start: rank 0 raised ")
    assert "Traceback" in run.failure.detail
    assert not pids(group)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("std::bad_alloc", FailureKind.OUT_OF_MEMORY),
        ("No space left on device", FailureKind.DISK_FULL),
        ("the checkpoint is damaged", FailureKind.LAUNCH),
    ],
)
def test_what_a_machine_lacks_is_said_as_that_where_a_group_starts_too(
    tmp_path: Path, words: str, kind: FailureKind
) -> None:
    def start(*arguments: Any) -> list[ForkedRank]:
        ranks = list(fork_ranks(*arguments))
        with ranks[1].log.open("a") as log:
            log.write(f"{words}\n")
        assert until(lambda: ranks[1].pid is not None)
        os.kill(ranks[1].pid or 0, signal.SIGABRT)
        return ranks

    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs", start=start)
    run = group.run(spec(), tmp_path / "run")
    assert run.failure is not None
    assert (run.failure.kind, run.failure.rank) == (kind, 1)
    assert run.failure.message.startswith("fake did not start: rank 1 ")


class Unreachable(ForkedRank):
    """A rank whose node cannot be reached any more, which is noticed when it is asked for its stacks."""

    def print_stacks(self) -> None:
        self.lost = "node b does not answer any more"


def test_a_hang_of_a_node_that_cannot_be_reached_is_not_the_engines(tmp_path: Path) -> None:
    def start(logs: Path, *_: object) -> list[ForkedRank]:
        return [kind(logs / f"{kind.__name__}.log", ()) for kind in (ForkedRank, Unreachable)]

    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs", start=start)
    run = group.run(spec(fault="hang", timeout_s=0.5), tmp_path / "run")
    assert run.failure is not None
    assert (run.outcome, run.failure.kind, run.failure.rank) == ("error", FailureKind.KILLED, 1)
    assert run.failure.message == f"rank 1 was lost: node b does not answer any more; see what killed it{FINISH}"


class OnGpu(ForkedRank):
    """A rank that claims to draw on a GPU."""

    kind = ""

    def read(self) -> list[Message] | None:
        replies = super().read()
        return [Ready({**reply.versions, "device": self.kind}) for reply in replies or () if isinstance(reply, Ready)]


@pytest.mark.parametrize("kinds", [("H200", "H200"), ("H200", "H100")])
def test_ranks_on_several_nodes_draw_on_gpus_of_one_kind(tmp_path: Path, kinds: tuple[str, str]) -> None:
    def start(logs: Path, *_: object) -> Iterator[OnGpu]:
        for index, (kind, node) in enumerate(zip(kinds, ("", "b"), strict=True)):
            rank = OnGpu(logs / f"rank-{index}.log", ())
            rank.kind, rank.node = kind, node
            yield rank

    group = WorkerGroup(GroupKey.of(spec()), tmp_path / "logs", start=start)
    try:
        if kinds[0] == kinds[1]:
            group.ensure("fake")
            return
        run = group.run(spec(), tmp_path / "run")
    finally:
        group.kill()
    assert run.failure is not None
    assert (run.failure.kind, run.failure.rank) == (FailureKind.LAUNCH, 1)
    assert run.failure.message == (
        "fake did not start: rank 1 on node b draws on H100, rank 0 on H200; a group needs GPUs of one kind"
    )
