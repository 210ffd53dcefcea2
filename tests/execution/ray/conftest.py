"""A real Ray cluster of several nodes on this machine, shared by all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.execution.ray.executor import RayExecutor
from harness.planning.graph import Graph
from harness.session import steps
from tests.execution.ray.cluster import MARK, Nodes, processes, wait_until


@pytest.fixture(scope="package")
def cluster() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:  # inherited by whatever is started in the cluster
        patch.setenv(MARK, str(os.getpid()))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be left in the home folder
        patch.setenv("RAY_health_check_period_ms", "300")  # a node that refuses connections is lost sooner
        patch.setenv("RAY_health_check_initial_delay_ms", "300")
        nodes = Nodes()
        yield nodes
        nodes.close()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster with one node of two processors; one that a test has lost and replaced will do."""
    cluster.become([2])
    return cluster


@pytest.fixture
def pair(cluster: Nodes) -> Nodes:
    """The cluster with two nodes of one processor each."""
    cluster.become([1, 1])
    return cluster


@pytest.fixture
def graph(bench: Any) -> Callable[[str], Graph]:
    return lambda text: steps.prepare(bench.matrix_file(text))[1]


@pytest.fixture
def executor(nodes: Nodes, tmp_path: Path) -> Iterator[RayExecutor]:
    with RayExecutor(tmp_path / "logs", nodes.address, patience_s=0) as executor:
        yield executor
    wait_until(lambda: not processes())


@pytest.fixture
def patient(nodes: Nodes, tmp_path: Path) -> Iterator[RayExecutor]:
    """An executor that waits for a node to be replaced."""
    with RayExecutor(tmp_path / "logs", nodes.address) as executor:
        yield executor
    wait_until(lambda: not processes())
