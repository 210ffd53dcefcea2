"""The program of one rank, spoken to as its parent does: orders in, replies out, nothing else."""

import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness import plugins
from harness.execution.rank import ForkedRank
from harness.planning import cut
from harness.plugins import Drawing
from harness.types import Case, RunSpec, Size
from harness.worker import main
from harness.worker.protocol import STACK_SIGNAL, Done, Message, Order, Raised, Ready, Reply, Start, Step, Unwritable

DEADLINE_S = 30.0


class RankProcess:
    """A rank of its own, without a group."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.forked = ForkedRank(log, ())
        self._arrived: list[Message] = []

    def order(self, engine: str, spec: RunSpec | None = None, folder: object = "") -> None:
        self.forked.send(Order(engine, spec, str(folder)))

    def reply(self) -> Message:
        while not self._arrived:
            assert select.select([self.forked.replies], [], [], DEADLINE_S)[0], self.log.read_text()
            replies = self.forked.read()
            assert replies is not None, self.log.read_text()
            self._arrived += replies
        return self._arrived.pop(0)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.forked.pid is not None
        os.kill(self.forked.pid, number)

    def end_orders(self) -> None:
        """What the death of its parent does."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.forked._orders)
        os.close(nowhere)

    def start(self) -> None:
        self.forked.send(Start(0, 1, "cpu", 0, "float32", "", "unused"))

    def close(self) -> None:
        self.forked.kill()
        self.forked.close()


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[RankProcess]:
    process = RankProcess(tmp_path / "rank.log")
    yield process
    process.close()


def spec(steps: int = 2, step_s: float = 0.0) -> RunSpec:
    case = Case("c", "fake", Size(128, 128), ("waves",), steps=steps)
    plan = cut.cut(case.size, 1, "h")
    return RunSpec(case, "fake", "", "fake", "test", plan=plan, options={"step_s": step_s})


def draw(rank: RankProcess, folder: Path, run: RunSpec) -> None:
    rank.order("fake", run, folder)


def test_it_makes_an_engine_ready_draws_and_leaves_the_files(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order("fake")
    ready = rank.reply()
    assert isinstance(ready, Ready)
    assert set(ready.versions) == {"python", "numpy"}
    for _ in range(2):  # one process serves many runs
        draw(rank, tmp_path, spec())
        assert [rank.reply() for _ in range(2)] == [Step(1), Step(2)]
        done = rank.reply()
        assert isinstance(done, Done)
        assert (done.images, done.latents) == (("image-0.png",), "latents.safetensors")
        assert done.peak_memory_bytes > 1 << 20
        assert (tmp_path / "image-0.png").is_file()
        assert (tmp_path / "latents.safetensors").is_file()


def test_an_order_that_fails_is_a_reply_and_the_rank_lives_on(rank: RankProcess) -> None:
    rank.start()
    rank.order("fak")
    raised = rank.reply()
    assert isinstance(raised, Raised)
    assert raised.message == "UsageError: there is no engine 'fak'; did you mean 'fake'?"
    assert raised.detail.startswith("Traceback")
    assert raised.machine is None
    rank.order("fake")
    assert isinstance(rank.reply(), Ready)


def test_a_folder_that_cannot_be_written_is_no_error_of_the_engine(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order("fake")
    assert isinstance(rank.reply(), Ready)
    gone = tmp_path / "gone"
    draw(rank, gone, spec(steps=1))
    assert rank.reply() == Step(1)
    assert rank.reply() == Unwritable(str(gone), errno.ENOENT)


def test_of_a_long_traceback_the_end_is_told(rank: RankProcess) -> None:
    rank.start()
    rank.order("x" * 100_000)
    raised = rank.reply()
    assert isinstance(raised, Raised)
    assert len(raised.detail) == main.MAX_DETAIL_CHARS
    assert raised.detail.rstrip().endswith(plugins.names("engines")[-1])  # of those that are known
    assert len(raised.message) == 500


class Silent:
    """An engine that draws and returns nothing, which only the ranks beyond the first may."""

    name = "silent"

    def draw(self, spec: RunSpec) -> Drawing | None:
        return None


@pytest.mark.parametrize("index", [0, 1])
def test_an_engine_that_returns_no_drawing_raises_on_the_first_rank(tmp_path: Path, index: int) -> None:
    replies: list[Reply] = []
    served = main.Rank(Start(index, 2, "cpu", 0, "float32", "", "unused"), replies.append)
    served.engines["silent"] = Silent()  # type: ignore[assignment]
    order = Order("silent", spec(), str(tmp_path))
    if index:
        served.serve(order)
        assert [type(reply) for reply in replies] == [Done]
    else:
        with pytest.raises(TypeError, match="engine 'silent': draw returned NoneType on rank 0"):
            served.serve(order)
        assert not replies


def test_it_ends_with_its_parent_whatever_it_does(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order("fake")
    draw(rank, tmp_path, spec(step_s=60, steps=3))
    assert isinstance(rank.reply(), Ready)
    rank.end_orders()
    assert rank.forked.wait() == -signal.SIGKILL


def test_ctrl_c_is_left_to_the_parent_and_a_signal_prints_the_stacks(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order("fake")
    assert isinstance(rank.reply(), Ready)
    draw(rank, tmp_path, spec(step_s=0.3, steps=3))
    assert rank.reply() == Step(1)
    rank.send_signal(signal.SIGINT)
    rank.send_signal(STACK_SIGNAL)
    assert [type(rank.reply()) for _ in range(3)] == [Step, Step, Done]
    deadline = time.monotonic() + DEADLINE_S
    while "most recent call first" not in rank.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "in draw" in rank.log.read_text()


@pytest.mark.parametrize(("chosen", "expected"), [(None, "WARN"), ("INFO", "INFO")], ids=["by default", "by a user"])
def test_nccl_is_asked_to_say_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str | None, expected: str
) -> None:
    """It is known by its words alone that memory has run out inside NCCL: see harness.worker.exhaustion."""
    monkeypatch.setattr(os, "environ", {"NCCL_DEBUG": chosen} if chosen else {})
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of this process
    asked: list[str] = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *_, **__: asked.append(os.environ["NCCL_DEBUG"])
    )
    main._start_torch(Start(0, 2, "cpu", 0, "float32", "", str(tmp_path / "store")))
    assert asked == [expected]


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (me@here)\n", "570.86.15"),
        ("something else\n", None),
    ],
    ids=["closed", "open", "unknown"],
)
def test_the_driver_is_part_of_what_a_gpu_drew_with(tmp_path: Path, line: str, version: str | None) -> None:
    told = tmp_path / "version"
    told.write_text(line + "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n")
    assert main._driver(told) == version
    assert main._driver(tmp_path / "no-gpu-here") is None
