"""The pool with real processes: slots, order, events, and that nothing outlives it."""

import contextlib
import os
import signal
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from harness.errors import InfrastructureError
from harness.execution import pool
from harness.execution.events import Finished, Started, Stepped
from harness.execution.pool import Pool
from harness.planning import cut
from harness.types import Case, FailureKind, RunSpec, Size


def spec(seed: int, world_size: int = 1, step_s: float = 0.0, steps: int = 2, fault: str | None = None) -> RunSpec:
    case = Case("c", "fake", Size(128, 128), ("waves",), seed=seed, steps=steps)
    return RunSpec(
        case,
        "fake",
        "",
        "fake",
        "test",
        ulysses=world_size,
        fault=fault,
        options={"step_s": step_s},
        plan=cut.cut(case.size, world_size, "h"),
    )


def ranks() -> list[psutil.Process]:
    """Living ranks of this process, in the order in which they were started: they are forked from its forkserver."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "sp-rank" and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterable[None]:
    assert not ranks()
    yield
    assert not ranks()


def test_single_device_runs_are_spread_over_slots_and_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "num_slots", lambda device: 2)
    specs = [spec(0, world_size=2), *(spec(seed, step_s=0.3, steps=1) for seed in range(3)), spec(1, world_size=2)]
    with Pool(tmp_path / "logs") as workers:
        events = list(workers.execute(specs, lambda run: tmp_path / run.digest))
    assert [type(event) for event in events[:2]] == [Started, Started]  # side by side
    order = [event.run.spec for event in events if isinstance(event, Finished)]
    assert {run.digest for run in order[:3]} == {run.digest for run in specs[1:4]}
    assert order[3:] == [specs[0], specs[4]]
    assert names(tmp_path / "logs") == ["0-world-1", "1-world-1", "2-world-2"]
    assert names(tmp_path / "logs" / "2-world-2") == ["rank-0.log", "rank-1.log"]
    assert {event.spec.digest for event in events if isinstance(event, Stepped)} == {run.digest for run in specs}


def test_more_slots_than_runs_start_no_idle_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "num_slots", lambda device: 8)
    with Pool(tmp_path / "logs") as workers:
        list(workers.execute([spec(0)], lambda run: tmp_path / run.digest))
        assert not ranks()  # nothing else is asked for, so the group is gone already
    assert names(tmp_path / "logs") == ["0-world-1"]


def test_groups_that_are_kept_serve_the_next_call(tmp_path: Path) -> None:
    with Pool(tmp_path / "logs", keep=True) as workers:
        seen = []
        for seed in range(2):
            (finished,) = [
                event
                for event in workers.execute([spec(seed, world_size=2)], lambda run: tmp_path / run.digest)
                if isinstance(event, Finished)
            ]
            assert finished.run.outcome == "ok"
            seen.append([process.pid for process in ranks()])
        assert seen[0] == seen[1]
        assert len(seen[0]) == 2
    assert names(tmp_path / "logs") == ["0-world-2"]


def test_a_rank_killed_mid_run_ends_that_run_only(tmp_path: Path) -> None:
    specs = [spec(0, world_size=2, step_s=0.1, steps=100), spec(1, world_size=2), spec(2, world_size=2, fault="crash")]
    runs, killed = [], False
    with Pool(tmp_path / "logs") as workers:
        for event in workers.execute(specs, lambda run: tmp_path / run.digest):
            if isinstance(event, Stepped) and not killed:
                killed = True
                os.kill(ranks()[1].pid, signal.SIGKILL)
            if isinstance(event, Finished):
                runs.append(event.run)
    kinds = [run.failure.kind if run.failure else None for run in runs]
    assert kinds == [FailureKind.KILLED, None, FailureKind.RAISED]


def test_leaving_the_loop_ends_the_work(tmp_path: Path) -> None:
    slow = [spec(seed, world_size=2, step_s=0.1, steps=100) for seed in range(2)]
    with (
        Pool(tmp_path / "logs") as workers,
        closing(workers.execute(slow, lambda run: tmp_path / run.digest)) as events,
    ):
        for event in events:
            if isinstance(event, Stepped):
                break
    assert not ranks()
    assert names(tmp_path) == ["logs"]


def test_a_disk_that_is_full_reaches_the_caller_in_words(tmp_path: Path) -> None:
    """A folder that cannot be replaced stands in for it: there is none to fill here."""
    (tmp_path / "run").write_text("in the way")
    with Pool(tmp_path / "logs") as workers, pytest.raises(InfrastructureError, match=r"run: a run cannot be written"):
        list(workers.execute([spec(0)], lambda run: tmp_path / "run"))


def test_an_error_of_the_harness_reaches_the_caller(tmp_path: Path) -> None:
    def nowhere(run: RunSpec) -> Path:
        raise PermissionError("the folder is read-only")

    with Pool(tmp_path / "logs") as workers, pytest.raises(PermissionError, match="read-only"):
        list(workers.execute([spec(0)], nowhere))
