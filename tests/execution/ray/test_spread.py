"""Groups of ranks that no node of the cluster can hold: two nodes of one processor each, on a real cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.execution.pool import Pool
from harness.execution.ray.executor import RayExecutor
from harness.planning.graph import Graph
from harness.types import FailureKind, RunSpec
from tests.execution.ray.cluster import Nodes, finished, processes, ranks, wait_until

FAKE = """
name = "m"
model = "fake"
steps = 20
golden = "off"
case = [{ size = "144x144", prompt = "x", timeout_s = 20 }]
variant = [{ engine = "fake", ulysses = 2, axis = "h", options = { step_s = 0.1 } }]
"""
NANO = """
name = "m"
model = "nano"
steps = 2
golden = "off"
case = [{ size = "144x144", prompt = "a red ball" }]
variant = [{ engine = "spatial", ulysses = 2, axis = "h" }]
"""


@pytest.fixture
def wide(pair: Nodes, tmp_path: Path) -> Iterator[RayExecutor]:
    """An executor on two nodes, which waits for one to be replaced."""
    with RayExecutor(tmp_path / "logs", pair.address) as executor:
        yield executor
    wait_until(lambda: not processes())


@pytest.fixture
def split(graph: Callable[[str], Graph]) -> Callable[[str], RunSpec]:
    return lambda text: next(spec for spec in graph(text).specs.values() if spec.world_size == 2)


def test_an_unlike_node_is_refused_by_name_before_anything_is_drawn(
    executor: RayExecutor, nodes: Nodes, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    """One node of two processors is as planned, the third rank's has another version of a library."""
    (tmp_path / "lib" / "numpy-0.1.dist-info").mkdir(parents=True)
    (tmp_path / "lib" / "numpy-0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.1\n")
    nodes.add(cpus=1, environment={"PYTHONPATH": str(tmp_path / "lib")})
    specs = list(graph(FAKE.replace("ulysses = 2", "ulysses = 3")).specs.values())
    assert max(spec.world_size for spec in specs) == 3
    events: list[Event] = []
    with pytest.raises(InfrastructureError, match=r"^node \S+: its code or libraries for fake are others"):
        events += executor.execute(specs, lambda spec: tmp_path / "runs" / spec.digest)
    assert not events
    assert not (tmp_path / "runs").exists()


def test_two_nodes_draw_the_bits_of_one(wide: RayExecutor, split: Callable[[str], RunSpec], tmp_path: Path) -> None:
    """The ranks of ``spatial`` exchange their parts through gloo, and each leaves the record of its probe."""
    drawn = split(NANO)
    specs = [drawn, replace(drawn, probe=True)]
    here, there = tmp_path / "here", tmp_path / "there"
    with Pool(tmp_path / "pool-logs") as pool:
        expected = finished(list(pool.execute(specs, lambda spec: here / spec.digest)))
    events: list[Event] = []
    for event in wide.execute(specs, lambda spec: there / spec.digest):
        if isinstance(event, Stepped) and not any(isinstance(event, Stepped) for event in events):
            assert len({rank.ppid() for rank in ranks()}) == 2  # forkservers
        events.append(event)
    runs = finished(events)
    assert [run.outcome for run in runs.values()] == ["ok", "ok"]
    for digest, run in runs.items():
        assert (run.spec, run.counters) == (expected[digest].spec, expected[digest].counters)
        assert len(run.peak_memory_bytes) == 2
        names = {path.name for path in (here / digest).iterdir()}
        assert {path.name for path in (there / digest).iterdir()} == names
        for name in names - {"run.json"}:
            assert (there / digest / name).read_bytes() == (here / digest / name).read_bytes()
    assert {path.name for path in tmp_path.glob("logs/*/*/rank-*.log")} == {"rank-0.log", "rank-1.log"}


def test_a_hang_is_answered_with_the_stacks_of_ranks_on_both_nodes(
    wide: RayExecutor, split: Callable[[str], RunSpec], tmp_path: Path
) -> None:
    sound = split(FAKE)
    hanging = replace(sound, fault="hang", case=replace(sound.case, timeout_s=1))
    runs = finished(list(wide.execute([hanging, sound], lambda spec: tmp_path / spec.digest)))
    failure = runs[hanging.digest].failure
    assert failure is not None
    assert (failure.kind, failure.message) == (FailureKind.HUNG, "no answer within 1 s from ranks 0, 1")
    first, second = failure.detail.removeprefix("--- rank 0").split("--- rank 1")
    for stacks in (first, second):
        assert "in _misbehave" in stacks
    assert runs[sound.digest].outcome == "ok"  # by ranks started anew
    assert "in _misbehave" in next(tmp_path.glob("logs/*/*/rank-1.log")).read_text()


def test_a_rank_that_raises_on_another_node_is_named(
    wide: RayExecutor, split: Callable[[str], RunSpec], tmp_path: Path
) -> None:
    events = list(wide.execute([replace(split(FAKE), fault="crash")], lambda spec: tmp_path / spec.digest))
    assert [type(event) for event in events] == [Started, Finished]  # an engine's failure is never tried again
    (run,) = finished(events).values()
    assert run.failure is not None
    assert (run.failure.kind, run.failure.rank) == (FailureKind.RAISED, 1)
    assert "_misbehave" in run.failure.detail


def test_leaving_the_loop_ends_the_ranks_on_both_nodes(
    wide: RayExecutor, split: Callable[[str], RunSpec], tmp_path: Path
) -> None:
    with closing(wide.execute([split(FAKE)], lambda spec: tmp_path / "runs" / spec.digest)) as events:
        next(event for event in events if isinstance(event, Stepped))
        assert len(ranks()) == 2
    wait_until(lambda: not ranks())
    assert not list(tmp_path.glob("runs/*"))


def test_what_two_nodes_draw_is_placed_again_when_one_is_lost(
    wide: RayExecutor, pair: Nodes, split: Callable[[str], RunSpec], tmp_path: Path
) -> None:
    spec = split(FAKE)
    events: list[Event] = []
    for event in wide.execute([spec], lambda spec: tmp_path / spec.digest):
        events.append(event)
        if isinstance(event, Stepped) and sum(isinstance(event, Stepped) for event in events) == 1:
            actors = [rank for rank in ranks() if any("Node" in " ".join(p.cmdline()) for p in rank.parents())]
            assert len(actors) == 1  # the other rank is the task's own
            pair.lose_that_of(actors[0])
            pair.add(cpus=1)
    assert [run.outcome for run in finished(events).values()] == ["ok"]
    assert Counter(type(event) for event in events)[Started] == 2
    assert any(isinstance(event, Waiting) and "it gets another place" in event.message for event in events)
