"""The actor's side of a group over several nodes, called in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.errors import InfrastructureError
from harness.execution import gpus, locks
from harness.execution.gpus import Gpu
from harness.execution.ray.node import Node
from harness.session import steps
from harness.types import RunSpec
from harness.worker import protocol
from harness.worker.protocol import Start

MATRIX = """
name = "m"
model = "fake"
steps = 2
golden = "off"
case = [{ size = "144x144", prompt = "x" }]
variant = [{ engine = "fake", ulysses = 2, axis = "h" }]
"""


class Process:
    """Stands for a rank that was forked."""

    def __init__(self) -> None:
        self.orders: list[Any] = []

    def write(self, line: bytes) -> None:
        self.orders.append(protocol.decode(line))


@pytest.fixture
def spec(bench: Any) -> RunSpec:
    specs = steps.prepare(bench.matrix_file(MATRIX))[1].specs.values()
    return next(spec for spec in specs if spec.world_size == 2)


def test_it_holds_gpus_against_other_runs_and_gives_them_to_its_ranks(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setattr(gpus, "visible", lambda device: tuple(Gpu(index, f"GPU-{index}") for index in (1, 2)))
    on_gpus = replace(spec, case=replace(spec.case, device="cuda"), model_path="/where/it/was/planned")
    node = Node()
    assert (
        len(list(node.prepare([codec.encode(on_gpus)], range(2, 4), "this run"))) == 1
    )  # its name: nothing is waited for
    node._processes = {2: Process(), 3: Process()}
    for rank in (2, 3):
        order = Start(rank, 4, "cuda", 0, "float32", on_gpus.model_path, "tcp://10.0.0.1:29400")
        node.write(rank, protocol.encode(order))
    sent = [process.orders[0] for process in node._processes.values()]
    assert [(order.device_index, order.model_path) for order in sent] == [(1, ""), (2, "")]  # fake has no folder
    node._processes = {}
    assert "(this run)" in locks.holder(tmp_path / "GPU-2.lock")
    node.close()
    assert not node._folder.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"weights": "others"}, "its weights of fake are others"), ({"case": 1}, "its code cannot read the runs planned")],
    ids=["weights", "another version of the plan"],
)
def test_an_unlike_node_names_itself(spec: RunSpec, change: dict[str, Any], words: str) -> None:
    node = Node()
    messages = node.prepare([{**codec.encode(spec), **change}], range(1), "this run")
    name = next(messages)
    with pytest.raises(InfrastructureError, match=f"^node {name}: {words}"):
        next(messages)
    node.close()
