"""A real Ray cluster of several nodes on this machine: what comes back, what is lost, what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from harness import codec
from harness.errors import InfrastructureError
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.execution.pool import Pool
from harness.execution.ray.executor import RayExecutor, _Stopwatch
from harness.planning.graph import Graph
from harness.types import FailureKind, Report, Run, RunSpec
from tests.execution.ray.cluster import DEADLINE_S, Nodes, finished, processes, ranks, wait_until, written

HEAD = 'name = "m"\nmodel = "fake"\nsteps = 2\ngolden = "off"\n'
TWO_CASES = HEAD + '[[case]]\nsize = ["128x128", "144x144"]\nprompt = "x"\n'
SEQUENCE = HEAD + "".join(
    f'[[case]]\nname = "{name}"\nsize = "128x128"\nprompt = "{name}"\nsequence = "s"\n' for name in ("one", "two")
)
VARIANT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\n'


def slow(step_s: float) -> str:
    return VARIANT + f"options = {{ step_s = {step_s} }}\n"


def test_patience_begins_when_nothing_fits() -> None:
    """A group may have waited for hours behind others when the one node that could hold it is lost."""
    unfit = _Stopwatch()
    assert unfit.seconds(False, 1000.0) == 0.0
    assert [unfit.seconds(True, now_s) for now_s in (5000.0, 5040.0)] == [0.0, 40.0]
    assert unfit.seconds(False, 5050.0) == 0.0  # the cluster grew
    assert unfit.seconds(True, 5060.0) == 0.0


def test_comes_to_what_the_local_pool_comes_to(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    specs = [*graph(TWO_CASES + VARIANT).specs.values(), *graph(SEQUENCE + VARIANT).specs.values()]
    here, there = tmp_path / "here", tmp_path / "there"
    with Pool(tmp_path / "pool-logs") as pool:
        expected = finished(list(pool.execute(specs, lambda spec: here / spec.digest)))
    events = []
    for event in executor.execute(specs, lambda spec: there / spec.digest):
        events.append(event)
        if isinstance(event, Finished):
            assert codec.read_json(there / event.run.spec.digest / "run.json", Run) == event.run
    runs = finished(events)
    assert set(runs) == set(expected) == {spec.digest for spec in specs}
    assert {path.name for path in there.iterdir()} == set(runs)  # nothing half done is left
    for digest, run in runs.items():
        assert run.spec == expected[digest].spec
        assert (run.outcome, run.images, run.counters) == ("ok", expected[digest].images, expected[digest].counters)
        for name in [*run.images, "latents.safetensors"]:
            assert (there / digest / name).read_bytes() == (here / digest / name).read_bytes()
    started = [event.spec.digest for event in events if isinstance(event, Started)]
    assert sorted(started) == sorted(runs)
    assert {event.spec.digest for event in events if isinstance(event, Stepped)} == set(runs)


def test_a_file_larger_than_a_piece_comes_whole(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    (baseline, *_) = graph(HEAD + '[[case]]\nsize = "1024x1024"\nprompt = "x"\nsteps = 20\n' + VARIANT).specs.values()
    (run,) = finished(list(executor.execute([baseline], lambda spec: tmp_path / "run"))).values()
    latents = tmp_path / "run" / "latents.safetensors"
    assert latents.stat().st_size > 5 << 20  # of 4 MiB pieces
    assert load_file(latents)["trajectory"].shape == (20, 1, 4, 128, 128)
    assert run.outcome == "ok"


def lose_the_node_in_the_middle_of(
    victim: RunSpec, others: int, events: Iterator[Event], nodes: Nodes, folder: Path, kind: str = ""
) -> tuple[list[Event], dict[str, int]]:
    """Kill the only node while it draws ``victim`` and all else has come back; another one comes afterwards.

    Returns all events, and what was on disk when the node died.
    """
    seen: list[Event] = []
    kept: dict[str, int] | None = None
    for event in events:
        seen.append(event)
        if kept is None and isinstance(event, Stepped) and event.spec == victim and len(written(folder)) == others:
            kept = written(folder)
            nodes.lose_the_oldest()
            nodes.add(kind)
    assert kept is not None
    return seen, kept


def test_a_lost_node_costs_what_was_under_way_there(
    patient: RayExecutor, nodes: Nodes, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    case = HEAD.replace("steps = 2", "steps = 10") + '[[case]]\nsize = "144x144"\nprompt = "x"\n'
    specs = list(graph(case + slow(0.1)).specs.values())
    split = next(spec for spec in specs if spec.world_size == 2)
    executing = patient.execute(specs, lambda spec: tmp_path / "runs" / spec.digest)
    events, kept = lose_the_node_in_the_middle_of(split, len(specs) - 1, executing, nodes, tmp_path / "runs")
    runs = finished(events)
    assert set(runs) == {spec.digest for spec in specs}
    assert {run.outcome for run in runs.values()} == {"ok"}
    begun = Counter(event.spec.digest for event in events if isinstance(event, Started))
    assert begun == {spec.digest: 2 if spec == split else 1 for spec in specs}
    (told,) = [event.message for event in events if isinstance(event, Waiting)]
    assert told.startswith("144x144 on node ")
    assert "its node was lost (" in told
    assert set(kept) == set(runs) - {split.digest}
    assert {digest: written(tmp_path / "runs")[digest] for digest in kept} == kept


def test_a_sequence_cut_in_two_by_a_lost_node_is_served_from_its_beginning(
    patient: RayExecutor, nodes: Nodes, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    text = SEQUENCE.replace("steps = 2", "steps = 10") + slow(0.1)
    first, second = (spec for spec in graph(text).specs.values() if spec.sequence)
    executing = patient.execute([first, second], lambda spec: tmp_path / spec.digest)
    events, kept = lose_the_node_in_the_middle_of(second, 1, executing, nodes, tmp_path)
    # The first request comes again before the second, unseen: it is known, and its folder stays as it is.
    begun = Counter(event.spec.case.name for event in events if isinstance(event, Started))
    assert begun == {first.case.name: 1, second.case.name: 2}
    assert {run.outcome for run in finished(events).values()} == {"ok"}
    assert set(kept) == {first.digest}
    assert written(tmp_path)[first.digest] == kept[first.digest]


def test_what_is_lost_is_drawn_on_the_same_kind_of_node(
    nodes: Nodes, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    """Pictures of different GPUs are not compared: another kind of node will not do."""
    lost_kind, other_kind = nodes.kind, f"{nodes.kind}-next"
    case = HEAD.replace("steps = 2", "steps = 10") + '[[case]]\nsize = "144x144"\nprompt = "x"\n'
    specs = list(graph(case + slow(0.1)).specs.values())
    split = next(spec for spec in specs if spec.world_size == 2)
    with RayExecutor(tmp_path / "logs", nodes.address, patience_s=3) as executor:
        executing = executor.execute(specs, lambda spec: tmp_path / "runs" / spec.digest)
        events, kept = lose_the_node_in_the_middle_of(
            split, len(specs) - 1, executing, nodes, tmp_path / "runs", other_kind
        )
    failure = finished(events)[split.digest].failure
    assert failure is not None
    assert failure.kind.infrastructure
    kind = f"with accelerator_type:{lost_kind}, where its other runs were drawn, "
    assert failure.message == f"nodes of the Ray cluster {kind}do not have the 2 CPUs it needs (the most is 0)"
    assert {digest: written(tmp_path / "runs")[digest] for digest in kept} == kept


def test_ranks_killed_on_a_node_are_the_machines_fault_and_drawn_again(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    split = next(spec for spec in graph(TWO_CASES + slow(0.2)).specs.values() if spec.world_size == 2)
    events: list[Event] = []
    killed = False
    for event in executor.execute([split], lambda spec: tmp_path / spec.digest):
        events.append(event)
        if isinstance(event, Stepped) and not killed:
            killed = True
            ranks()[-1].kill()
    assert [run.outcome for run in finished(events).values()] == ["ok"]
    assert sum(isinstance(event, Started) for event in events) == 2


def test_an_engines_own_failure_is_never_tried_again(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    text = TWO_CASES + VARIANT + 'fault = "crash"\n'
    split = next(spec for spec in graph(text).specs.values() if spec.world_size == 2)
    events = list(executor.execute([split], lambda spec: tmp_path / spec.digest))
    assert [type(event) for event in events] == [Started, Finished]
    (run,) = finished(events).values()
    assert run.failure is not None
    assert run.failure.kind == FailureKind.RAISED
    assert codec.read_json(tmp_path / split.digest / "run.json", Run) == run


def test_what_fits_on_no_node_is_recorded_and_the_rest_is_drawn(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path
) -> None:
    baseline, *_ = graph(TWO_CASES + VARIANT).specs.values()
    split = next(spec for spec in graph(TWO_CASES + VARIANT.replace("2", "3")).specs.values() if spec.world_size == 3)
    on_gpus = replace(split, case=replace(split.case, device="cuda"))
    many_cores = replace(split, case=replace(split.case, seed=7))
    runs = finished(list(executor.execute([on_gpus, baseline, many_cores], lambda spec: tmp_path / spec.digest)))
    assert runs[baseline.digest].outcome == "ok"
    for spec, wanted in ((on_gpus, "3 GPUs it needs (the most is 0)"), (many_cores, "3 CPUs it needs (the most is 2)")):
        failure = runs[spec.digest].failure
        assert failure is not None
        assert (failure.kind, failure.kind.infrastructure) == (FailureKind.LAUNCH, True)
        assert failure.message == f"nodes of the Ray cluster of one kind do not have the {wanted}"
        assert codec.read_json(tmp_path / spec.digest / "run.json", Run) == runs[spec.digest]


@pytest.mark.parametrize(
    ("field", "words"), [("source", "code or libraries for fake are others"), ("weights", "weights of fake are others")]
)
def test_a_node_that_would_compute_something_else_is_refused(
    executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path, field: str, words: str
) -> None:
    baseline, *_ = graph(TWO_CASES + VARIANT).specs.values()
    planned = replace(baseline, **{field: "planned elsewhere"})
    with pytest.raises(InfrastructureError) as error:
        list(executor.execute([planned], lambda spec: tmp_path / "runs" / spec.digest))
    message = str(error.value)
    assert message.startswith("node ")
    assert words in message
    assert "\n" not in message
    assert not (tmp_path / "runs").exists()


def test_leaving_the_loop_ends_the_ranks(executor: RayExecutor, graph: Callable[[str], Graph], tmp_path: Path) -> None:
    specs = list(graph(TWO_CASES.replace("steps = 2", "steps = 400") + slow(0.2)).specs.values())
    with closing(executor.execute(specs, lambda spec: tmp_path / "runs" / spec.digest)) as events:
        next(event for event in events if isinstance(event, Stepped))
        assert ranks()
    wait_until(lambda: not ranks())
    assert not list(tmp_path.glob("runs/*"))


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="the Ray cluster nowhere cannot be reached"):
        RayExecutor(tmp_path / "logs", "nowhere")


DEAF = """
import sys
from pathlib import Path
from harness.session import steps
from harness.execution.ray.executor import RayExecutor
spec, *_ = steps.prepare(Path(sys.argv[1]))[1].specs.values()
with RayExecutor(Path("logs"), sys.argv[2], answer_s=3) as executor:
    list(executor.execute([spec], lambda spec: Path("runs", spec.digest)))
"""


def test_a_task_that_is_placed_and_never_heard_of_is_not_waited_for(nodes: Nodes, bench: Any) -> None:
    """Answers do not pass where one side asks for a token and the other has none; ray says nothing of it."""
    done = subprocess.run(
        [sys.executable, "-c", DEAF, bench.matrix_file(TWO_CASES + VARIANT), nodes.address],
        cwd=bench.root,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert "InfrastructureError: a task was placed in the Ray cluster" in done.stderr
    assert "RAY_AUTH_MODE" in done.stderr
    wait_until(lambda: not processes())


class TestTheCommandLine:
    def start(self, folder: Path, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
        # The cluster of this module is the one that ray would find by itself.
        environment = os.environ if "--ray-address" in arguments else {**os.environ, "RAY_ADDRESS": "local"}
        return subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    def test_interrupted_and_resumed(self, nodes: Nodes, bench: Any) -> None:
        text = TWO_CASES.replace("steps = 2", "steps = 20") + slow(0.05)
        chosen = ("--executor", "ray", "--ray-address", nodes.address)
        process = self.start(bench.root, "run", bench.matrix_file(text), *chosen)
        reports = bench.root / "reports"
        wait_until(lambda: process.poll() is not None or list(reports.glob("*/runs/*/run.json")))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 130, output
        assert "Traceback" not in output
        wait_until(lambda: not processes())
        (run,) = reports.iterdir()
        before = written(run / "runs")
        process = self.start(bench.root, "run", "--resume", run, *chosen)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, output
        assert "2 pass" in output
        assert codec.read_json(run / "report.json", Report).complete
        assert {digest: written(run / "runs")[digest] for digest in before} == before

    def test_without_an_address_it_starts_a_cluster_and_ends_it(self, bench: Any) -> None:
        process = self.start(bench.root, "run", bench.matrix_file(TWO_CASES + VARIANT), "--executor", "ray")
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, output
        assert "2 pass" in output
