"""A Ray task: check the node, compute a group of cases there, and send back what happens.

The task is a generator of the pool's own events; files travel before the :class:`Finished` of their run, in
pieces, so that neither side ever holds a whole run in memory and what has been sent stays when the node is lost.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import codec
from harness.execution.events import Event, Finished, Holding, Waiting
from harness.execution.pool import Pool
from harness.execution.ray.node import Piece, found_here, named, pieces
from harness.execution.ray.spread import Nodes
from harness.scratch import scratch
from harness.types import RunSpec


@dataclass(frozen=True)
class Placed:
    """The task has begun, on this node."""

    node: str
    node_id: str


Message = Placed | Event | Piece


def work(encoded: Sequence[Any], bundles: Sequence[Mapping[str, float]]) -> Iterator[Message]:
    """Compute runs.

    Parameters
    ----------
    encoded
        The runs, as :func:`harness.codec.encode` leaves them.
    bundles
        Resources of each node of the placement group, this node's first.

    Raises
    ------
    InfrastructureError
        If a node would compute something else than what was planned, or cannot write.
    """
    import ray

    node = platform.node()
    yield Placed(node, ray.get_runtime_context().get_node_id())
    with named():
        specs = found_here(encoded)
    shares = [int(bundle.get("GPU") or bundle["CPU"]) for bundle in bundles]
    num_cpus = int(bundles[0].get("CPU", 0))
    with scratch("sp-harness-ray-") as place, closing(Nodes(shares)) as nodes:
        for message in nodes.prepare(codec.encode(specs), f"Ray task of process {os.getpid()} on {node}"):
            yield Waiting(message)
        keep = num_cpus > 0 and len(shares) == 1
        with named(), Pool(place / "logs", keep, nodes.start) as pool:
            for portion in _portions(specs, num_cpus):
                for event in pool.execute(portion, lambda spec: place / spec.digest):
                    yield from _messages(event, node, place)
        yield from pieces("", place / "logs")


def _portions(specs: Sequence[RunSpec], num_cpus: int) -> Iterator[Sequence[RunSpec]]:
    """Hand out runs so that no more work side by side than the task has cores; GPUs are counted by ray itself."""
    single = [spec for spec in specs if spec.world_size == 1 and not spec.sequence]
    if num_cpus == 0 or num_cpus >= len(single):
        yield specs
        return
    for start in range(0, len(single), num_cpus):
        yield single[start : start + num_cpus]
    yield [spec for spec in specs if spec not in single]


def _messages(event: Event, node: str, place: Path) -> Iterator[Message]:
    if isinstance(event, Waiting):
        yield replace(event, message=f"node {node}: {event.message}")
    elif isinstance(event, Finished):
        folder = place / event.run.spec.digest
        yield from pieces(event.run.spec.digest, folder, left_out=("run.json",))
        yield event
        shutil.rmtree(folder)
    elif not isinstance(event, Holding):  # of GPUs that no process of who asked can use
        yield event
