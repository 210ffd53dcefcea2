"""One start of one group over several nodes, as the head sees it: an agent on each node, ranks as they arrive."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.execution.node import Node
from harness.execution.rank import Rank, StartFailed
from harness.execution.remote import RemoteRank
from harness.execution.torchrun import Agent, LaunchOrder
from harness.execution.wire import Endpoint, Line

RANKS_TIMEOUT_S = 120.0
"""How long torchrun may take to start its ranks once all nodes are there."""
POLL_S = 0.25


class Launch:
    """One start of one group: its agents, and its ranks as they arrive."""

    def __init__(
        self,
        name: str,
        num_ranks: int,
        logs: Path,
        modules: Sequence[str],
        devices: Sequence[int],
        changed: threading.Condition,
    ) -> None:
        self.name = name
        self._devices = devices
        self._foreign_agents: set[Node] = set()
        self._num_ranks = num_ranks
        self._logs = logs
        self._modules = modules
        self._changed = changed
        self._nodes: list[Node | None] = []
        self._agent: Agent | None = None
        self._ranks: dict[int, RemoteRank] = {}
        self._problem: StartFailed | None = None
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether nobody will speak of it any more."""
        return self._over and not self._foreign_agents

    def begin(self, node: Node | None, order: LaunchOrder, token: bytes) -> None:
        """Start the agent of one node."""
        self._nodes.append(node)
        if node is None:
            self._agent = Agent(
                order, token, Endpoint.parse(order.head).host, self._logs / "torchrun.log", self._own_agent_exited
            )
            return
        self._foreign_agents.add(node)
        try:
            node.line.send({"begin": asdict(order)})
        except OSError:
            self.lost(node)

    def ranks(self, wanted: Callable[[], bool]) -> Sequence[Rank]:
        """Wait until all ranks have reported."""
        deadline = time.monotonic() + RANKS_TIMEOUT_S
        with self._changed:
            while len(self._ranks) < self._num_ranks:
                if self._problem:
                    raise self._problem
                if not wanted() or time.monotonic() > deadline:
                    log = self._agent.tail() if self._agent else ""
                    found = f"{len(self._ranks)} of {self._num_ranks} ranks reported within {RANKS_TIMEOUT_S:g} s"
                    raise StartFailed(found, log)
                self._changed.wait(POLL_S)
            return [self._ranks[index] for index in range(self._num_ranks)]

    def arrived(self, line: Line, message: dict[str, Any]) -> None:
        """Take a rank over."""
        line.send({"modules": list(self._modules)})
        with self._changed:
            node = self._nodes[message["node"]]
            index = message["rank"]
            if self._over:
                line.close()
                return
            log, place = self._logs / f"rank-{index}.log", message["place"]
            if node:
                rank = RemoteRank(line, log, node.device_of(place), node.name, self._closed)
                rank.model_path = node.model_path
            else:
                rank = RemoteRank(line, log, self._devices[place] if self._devices else place, "", self._closed)
            self._ranks[index] = rank
            self._changed.notify_all()

    def agent_exited(self, node: Node, code: int, log: bytes) -> None:
        """Take note that the agent of one node has ended."""
        self._foreign_agents.discard(node)
        text = log.decode("utf-8", "replace")
        with contextlib.suppress(OSError):  # that log can be done without
            (self._logs / f"torchrun-{node.name}.log").write_text(text, encoding="utf-8")
        self._failed(StartFailed(f"torchrun ended with exit code {code} on {node.name}", text))

    def lost(self, node: Node) -> None:
        """Take note that a node is gone, and its ranks with it."""
        if node not in self._nodes:
            return
        self._foreign_agents.discard(node)
        self._failed(StartFailed(f"node {node.name} was lost"))
        for rank in list(self._ranks.values()):
            if rank.node == node.name:
                rank.lose()

    def end(self) -> None:
        """End what has been started."""
        with self._changed:
            self._over = True
            ranks = list(self._ranks.values())
        for rank in ranks:
            rank.kill()
            rank.close()
        self._end_agents()

    def _own_agent_exited(self, code: int) -> None:
        detail = self._agent.tail() if self._agent else ""
        self._failed(StartFailed(f"torchrun ended with exit code {code} on the head", detail))

    def _failed(self, problem: StartFailed) -> None:
        with self._changed:
            self._problem = self._problem or problem
            self._changed.notify_all()

    def _closed(self) -> None:
        """End the agents with the last rank."""
        if all(rank.is_closed for rank in self._ranks.values()):
            self._over = True
            self._end_agents()

    def _end_agents(self) -> None:
        if self._agent:
            self._agent.end()
        for node in self._nodes:
            if node:
                with contextlib.suppress(OSError):
                    node.line.send({"end": self.name})
