"""Pools that share GPUs: real processes and real locks; only the list of GPUs is given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.execution import gpus
from harness.execution.events import Event, Finished, Holding, Started, Waiting
from harness.execution.gpus import Gpu
from harness.execution.pool import Pool
from harness.planning import cut
from harness.types import Case, RunSpec, Size

GPUS = (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb"))

HOLD = """
import sys
from pathlib import Path
from harness.execution import locks
held = [locks.attempt(Path(path), "reports/other") for path in sys.argv[1:]]
assert all(held)
print("held", flush=True)
sys.stdin.read()
"""

Other = Callable[..., "subprocess.Popen[str]"]


def spec(seed: int, world_size: int = 1) -> RunSpec:
    case = Case("c", "fake", Size(128, 128), ("waves",), seed=seed, steps=1)
    plan = cut.cut(case.size, world_size, "h")
    return RunSpec(case, "fake", "", "fake", "test", ulysses=world_size, options={"step_s": 0.05}, plan=plan)


@pytest.fixture(autouse=True)
def locks_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two GPUs on a machine whose locks lie in a folder of the test."""
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(gpus, "visible", lambda device: GPUS)
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks"


@pytest.fixture
def other(locks_folder: Path) -> Iterator[Other]:
    """Another process that holds GPUs."""
    started = []

    def start(*gpus: Gpu) -> subprocess.Popen[str]:
        paths = [str(locks_folder / f"{gpu.uuid}.lock") for gpu in gpus]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def placed(pool: Pool) -> dict[tuple[int, int], list[int]]:
    """World size and slot of each group to the GPUs of its ranks."""
    return {(key.world_size, slot): list(group.devices) for (key, slot), group in pool._groups.items()}


def test_gpus_are_held_batch_by_batch_and_given_back(other: Other, tmp_path: Path) -> None:
    with Pool(tmp_path / "run" / "logs") as pool:
        events = list(pool.execute([spec(0, 2), spec(1), spec(2), spec(3)], lambda run: tmp_path / run.digest))
        assert placed(pool) == {(1, 0): [0], (1, 1): [1], (2, 0): [0, 1]}
        assert of(Holding, events) == [Holding((0, 1)), Holding(()), Holding((0, 1)), Holding(())]
        other(*GPUS)  # nothing is held any more


def test_one_run_holds_one_gpu(tmp_path: Path) -> None:
    with Pool(tmp_path / "run" / "logs") as pool:
        events = list(pool.execute([spec(0)], lambda run: tmp_path / run.digest))
    assert of(Holding, events) == [Holding((0,)), Holding(())]


def test_single_device_runs_go_to_the_gpus_that_are_free(other: Other, tmp_path: Path) -> None:
    other(GPUS[0])
    with Pool(tmp_path / "run" / "logs") as pool:
        events = list(pool.execute([spec(0), spec(1), spec(2)], lambda run: tmp_path / run.digest))
        assert placed(pool) == {(1, 0): [1]}
    assert not of(Waiting, events)
    assert len(of(Finished, events)) == 3


def test_a_split_run_waits_for_its_gpus_and_says_for_whom(other: Other, tmp_path: Path) -> None:
    holder = other(GPUS[1])
    with Pool(tmp_path / "run" / "logs") as pool:
        events = pool.execute([spec(0, 2)], lambda run: tmp_path / run.digest)
        waiting = next(events)
        assert isinstance(waiting, Waiting)
        expected = f"waiting for 2 of these GPUs: GPU 1: process {holder.pid} (reports/other), since "
        assert waiting.message.startswith(expected)
        assert not (tmp_path / "run").exists()  # no rank has been started
        holder.kill()
        assert [type(event) for event in events if not isinstance(event, Waiting)][:2] == [Holding, Started]


def test_a_pool_that_keeps_its_groups_lets_go_before_it_waits(other: Other, tmp_path: Path) -> None:
    with Pool(tmp_path / "run" / "logs", keep=True) as pool:
        list(pool.execute([spec(0)], lambda run: tmp_path / run.digest))
        holder = other(GPUS[1])
        events = pool.execute([spec(1, 2)], lambda run: tmp_path / run.digest)
        assert isinstance(next(events), Waiting)
        other(GPUS[0])  # it is free while the pool waits
        holder.kill()
        events.close()


def test_gpus_stay_with_a_pool_that_keeps_its_groups_until_it_is_closed(other: Other, tmp_path: Path) -> None:
    with Pool(tmp_path / "run" / "logs", keep=True) as pool:
        for seed in range(2):
            events = list(pool.execute([spec(seed, 2)], lambda run: tmp_path / run.digest))
            assert of(Holding, events) == ([Holding((0, 1))] if seed == 0 else [])
        with pytest.raises(AssertionError):
            other(GPUS[0])
    other(*GPUS)


def test_leaving_early_gives_gpus_back(other: Other, tmp_path: Path) -> None:
    with Pool(tmp_path / "run" / "logs") as pool:
        for event in pool.execute([spec(0, 2), spec(1, 2)], lambda run: tmp_path / run.digest):
            if isinstance(event, Started):
                break
    other(*GPUS)


def test_a_wait_without_end_is_an_error(other: Other, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.Lease.__init__, "__defaults__", (None, 0.0))
    other(*GPUS)
    with Pool(tmp_path / "run" / "logs") as pool, pytest.raises(InfrastructureError, match="still waiting for 1"):
        list(pool.execute([spec(0)], lambda run: tmp_path / run.digest))


def test_who_holds_a_gpu_is_told_by_the_run_folder(tmp_path: Path, locks_folder: Path) -> None:
    with Pool(tmp_path / "run" / "logs" / "explained") as pool:
        for event in pool.execute([spec(0)], lambda run: tmp_path / run.digest):
            if isinstance(event, Started):
                assert f"({tmp_path / 'run'})" in gpus.locks.holder(locks_folder / "GPU-aa.lock")


def test_ranks_beyond_the_last_gpu_have_a_number_all_the_same(tmp_path: Path) -> None:
    """The rank itself then says that there is no GPU for it."""
    with Pool(tmp_path / "run" / "logs") as pool:
        list(pool.execute([spec(0, 3)], lambda run: tmp_path / run.digest))
        assert placed(pool) == {(3, 0): [0, 1, 2]}


def test_without_gpus_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "visible", lambda device: ())
    on_gpu = replace(spec(0), case=replace(spec(0).case, device="cuda"))
    with Pool(tmp_path / "run" / "logs") as pool, pytest.raises(InfrastructureError, match="no GPU is visible here"):
        list(pool.execute([on_gpu], lambda run: tmp_path / run.digest))
    assert not (tmp_path / "run" / "logs").exists()
