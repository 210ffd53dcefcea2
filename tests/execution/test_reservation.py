"""What a node looks at before any rank is started there; the word goes to a list instead of the head."""

from __future__ import annotations

import importlib.metadata
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import models
from harness.execution import gpus, locks
from harness.execution.gpus import Gpu
from harness.execution.reservation import SAME_EVERYWHERE, Need, Reservation
from harness.types import Case, RunSpec, Size

DEADLINE_S = 30.0

NEED = Need(2, "cpu", "fake", None, "", "fake", {}, "reports/night on gpu-1")

Ask = Callable[..., Mapping[str, Any]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask for something; the first word."""
    made: list[Reservation] = []

    def ask_for(need: Need, num_ranks: int = 1) -> Mapping[str, Any]:
        told: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        made.append(Reservation(need, num_ranks, told.put))
        return told.get(timeout=DEADLINE_S)

    yield ask_for
    for reservation in made:
        reservation.end()


def test_what_runs_need_is_put_together_from_all_of_them() -> None:
    case = Case("c", "nano", Size(128, 128), ("waves",), revision="v1", device="cuda")
    spatial = RunSpec(case, "spatial", "/models/nano", "digest", "test", ulysses=2)
    need = Need.of([spatial, replace(spatial, engine="fake")], "reports/night")
    assert (need.num_ranks, need.device, need.model, need.revision) == (2, "cuda", "nano", "v1")
    assert (need.model_path, need.weights) == ("/models/nano", "digest")
    assert need.packages == {"numpy": importlib.metadata.version("numpy")}  # torch is compared when a node joins
    assert "torch" in SAME_EVERYWHERE
    cached = importlib.metadata.version("cache-dit")
    assert Need.of([replace(spatial, cache="cache-dit")], "reports/night").packages == {"cache-dit": cached}


def test_a_node_that_has_all_says_where(ask: Ask) -> None:
    assert ask(NEED) == {"held": [0], "model_path": ""}
    assert ask(replace(NEED, model="nano", model_path="/not/here", weights=models.resolve("nano").weights)) == {
        "held": [0],
        "model_path": str(models.SHIPPED),
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights": "fake of old"}, "its weights of fake are others (fake, planned fake of old); put the same"),
        ({"packages": {"numpy": "0.1"}}, ", planned 0.1); install the same versions on every node"),
        ({"packages": {"no-such-package": "1"}}, "its no-such-package is another (not installed, planned 1)"),
        ({"model": "./gone", "model_path": "/gone"}, "model './gone': there is no such folder"),
        ({"model": "./gone", "model_path": None}, "TypeError: "),  # whatever it is, the head must not wait for ever
    ],
)
def test_a_node_that_lacks_something_says_what(ask: Ask, changed: dict[str, Any], words: str) -> None:
    told = ask(replace(NEED, **changed))
    assert list(told) == ["unfit"]
    assert words in told["unfit"]


def test_gpus_are_held_for_whom_the_head_says(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setattr(gpus, "visible", lambda device: (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb")))
    assert ask(NEED, num_ranks=3) == {"held": [0, 1, 2], "model_path": ""}  # the third rank says that it has none
    assert "(reports/night on gpu-1)" in locks.holder(tmp_path / "GPU-bb.lock")


HOLD = """
import sys
from pathlib import Path
from harness.execution import locks
held = locks.attempt(Path(sys.argv[1]), "reports/other")
assert held
print("held", flush=True)
sys.stdin.read()
"""


def test_who_gives_up_waiting_is_told_of_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setattr(gpus, "visible", lambda device: (Gpu(0, "GPU-aa"),))
    told: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "GPU-aa.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = set(threading.enumerate())
        reservation = Reservation(NEED, 1, told.put)
        (thread,) = set(threading.enumerate()) - before
        assert list(told.get(timeout=DEADLINE_S)) == ["waiting"]
        reservation.end()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        other.kill()
    assert told.empty()
