"""The program of one rank, spoken to as its parent does: orders in, replies out, nothing else."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import codec, plan, worker
from harness.types import Case, RunSpec, Size

DEADLINE_S = 30.0


class RankProcess:
    """A worker started by hand."""

    def __init__(self, log: Path) -> None:
        self.log = log
        read_end, write_end = os.pipe()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.worker", str(write_end)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                start_new_session=True,
                text=True,
            )
        os.close(write_end)
        self.replies = read_end
        self._arrived = b""

    def order(self, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(fields) + "\n")
        self.process.stdin.flush()

    def reply(self) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self.replies, selectors.EVENT_READ)
            while b"\n" not in self._arrived:
                assert selector.select(DEADLINE_S), self.log.read_text()
                self._arrived += os.read(self.replies, 1 << 16)
        first, _, self._arrived = self._arrived.partition(b"\n")
        line: dict[str, Any] = json.loads(first)
        return line

    def start(self) -> None:
        self.order(
            rank=0, world_size=1, device="cpu", device_index=0, dtype="float32", model_path="", rendezvous="unused"
        )

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(DEADLINE_S)
        os.close(self.replies)


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[RankProcess]:
    process = RankProcess(tmp_path / "rank.log")
    yield process
    process.close()


def spec(steps: int = 2, step_s: float = 0.0) -> RunSpec:
    case = Case("c", "fake", Size(128, 128), ("waves",), steps=steps)
    cut = plan.cut(case.size, 1, "h")
    return RunSpec(case, "fake", "", "fake", "test", plan=cut, options={"step_s": step_s})


def draw(rank: RankProcess, folder: Path, run: RunSpec) -> None:
    rank.order(engine="fake", spec=codec.encode(run), folder=str(folder))


def test_it_makes_an_engine_ready_draws_and_leaves_the_files(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order(engine="fake")
    ready = rank.reply()
    assert ready["event"] == "ready"
    assert set(ready["versions"]) == {"python", "numpy"}
    for _ in range(2):  # one process serves many runs
        draw(rank, tmp_path, spec())
        assert [rank.reply() for _ in range(2)] == [{"event": "step", "step": 1}, {"event": "step", "step": 2}]
        done = rank.reply()
        assert (done["event"], done["images"], done["latents"]) == ("done", ["image-0.tif"], "latents.safetensors")
        assert done["peak_memory_bytes"] > 1 << 20
        assert (tmp_path / "image-0.tif").is_file()
        assert (tmp_path / "latents.safetensors").is_file()


def test_an_order_that_fails_is_a_reply_and_the_rank_lives_on(rank: RankProcess) -> None:
    rank.start()
    rank.order(engine="fak")
    raised = rank.reply()
    assert raised["event"] == "raised"
    assert raised["message"] == "UsageError: there is no engine 'fak'; did you mean 'fake'?"
    assert raised["detail"].startswith("Traceback")
    assert raised["out_of_memory"] is False
    rank.order(engine="fake")
    assert rank.reply()["event"] == "ready"


def test_it_ends_with_its_parent_whatever_it_does(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order(engine="fake")
    draw(rank, tmp_path, spec(step_s=60, steps=3))
    assert rank.reply()["event"] == "ready"
    assert rank.process.stdin is not None
    rank.process.stdin.close()
    assert rank.process.wait(DEADLINE_S) == -signal.SIGKILL


def test_ctrl_c_is_left_to_the_parent_and_a_signal_prints_the_stacks(rank: RankProcess, tmp_path: Path) -> None:
    rank.start()
    rank.order(engine="fake")
    assert rank.reply()["event"] == "ready"
    draw(rank, tmp_path, spec(step_s=0.3, steps=3))
    assert rank.reply() == {"event": "step", "step": 1}
    rank.process.send_signal(signal.SIGINT)
    rank.process.send_signal(signal.SIGUSR1)
    assert [rank.reply()["event"] for _ in range(3)] == ["step", "step", "done"]
    deadline = time.monotonic() + DEADLINE_S
    while "most recent call first" not in rank.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "in draw" in rank.log.read_text()


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
    assert worker._driver(told) == version
    assert worker._driver(tmp_path / "no-gpu-here") is None
