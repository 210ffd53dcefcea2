"""Nodes of a Ray cluster on this machine: what to ask of them, and what is left of their processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from harness.execution.events import Event, Finished
from harness.types import Run

DEADLINE_S = 60.0
MARK = "SP_HARNESS_TEST_CLUSTER_OF"
STORE_BYTES = 80 << 20  # nearly the least that ray takes


class Nodes:
    """A cluster whose first node computes nothing, so that losing any other leaves the cluster alive."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
        self._nodes: list[Any] = []
        self._cpus: list[int] = []
        self.kind = "A100"

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def become(self, cpus: Sequence[int]) -> None:
        """Have nodes with so many processors, and no others."""
        if self._cpus != list(cpus):
            while self._nodes:
                self._remove(self._nodes[0], allow_graceful=True)
            for number in cpus:
                self.add(cpus=number)
        self._cluster.wait_for_nodes(DEADLINE_S)  # those that were lost before are known to be

    def add(self, kind: str = "", cpus: int = 2, environment: Mapping[str, str] | None = None) -> None:
        """Let a node join, of a kind that ray would find by its GPUs: that of the last one by default."""
        self.kind = kind or self.kind
        resources = {f"accelerator_type:{self.kind}": 1}
        node = self._cluster.add_node(
            num_cpus=cpus, object_store_memory=STORE_BYTES, resources=resources, env_vars=dict(environment or {})
        )
        self._nodes.append(node)
        self._cpus.append(cpus)

    def lose_the_oldest(self) -> None:
        """Kill the node that has been there longest, as the power cut does: without a word."""
        self._remove(self._nodes[0])

    def lose_that_of(self, process: psutil.Process) -> None:
        """Kill the node on which a process runs."""
        pids = {parent.pid for parent in process.parents()}
        self._remove(next(node for node in self._nodes if node.all_processes["raylet"][0].process.pid in pids))

    def _remove(self, node: Any, allow_graceful: bool = False) -> None:
        index = self._nodes.index(node)
        self._cpus.pop(index)
        self._cluster.remove_node(self._nodes.pop(index), allow_graceful)

    def close(self) -> None:
        self._cluster.shutdown()


def processes() -> list[psutil.Process]:
    """What is left of worker groups in the cluster: ranks, and the templates they were forked from."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            ours = process.environ().get(MARK) == os.environ[MARK] and "harness.worker.forkserver" in process.cmdline()
            if ours and process.status() != psutil.STATUS_ZOMBIE and process.ppid() != os.getpid():
                found.append(process)
    return found


def ranks() -> list[psutil.Process]:
    """Those of them that were forked."""
    templates = {process.pid for process in processes()}
    return [process for process in processes() if process.ppid() in templates]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(events: list[Event]) -> dict[str, Run]:
    runs = [event.run for event in events if isinstance(event, Finished)]
    assert len({run.spec.digest for run in runs}) == len(runs)  # nothing ends twice
    return {run.spec.digest: run for run in runs}


def written(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*/run.json")}
