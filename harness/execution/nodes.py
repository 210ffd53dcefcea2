"""The head of a run over several nodes: who has joined, and ranks on other machines that look like one's own.

A group that needs more ranks than the head has slots is started by torchrun, with one agent on each node;
each of its ranks reports here, and from then on everything it says and leaves comes over that connection.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.execution import wire
from harness.execution.gpus import Lease
from harness.execution.node import Node
from harness.execution.node_launch import RANKS_TIMEOUT_S, Launch
from harness.execution.rank import Rank, StartFailed
from harness.execution.reservation import SAME_EVERYWHERE, Need
from harness.execution.torchrun import LaunchOrder
from harness.execution.wire import Endpoint
from harness.planning.graph import source_digest

JOIN_TIMEOUT_S = 600.0
"""How long the first group waits for its nodes: batch systems start them one by one."""
POLL_S = 0.25
MAX_STRANGERS = 32
"""Who is listened to at once before it has proved that it knows the token; others wait for their turn."""
SPOKEN_HERE = (
    "wire.py",
    "nodes.py",
    "node.py",
    "node_launch.py",
    "member.py",
    "reservation.py",
    "devices.py",
    "locks.py",
    "remote.py",
    "outpost.py",
    "torchrun.py",
    "many_nodes.py",
    "interpreter.py",
    "rank.py",
    "template.py",
    "registry.py",
)
"""What runs beside the ranks, on both ends of a connection."""


def source() -> str:
    """What has to be the same on all nodes: Python, and a digest of our code and the libraries it computes with."""
    return f"{sys.version_info.major}.{sys.version_info.minor} {source_digest(SAME_EVERYWHERE, SPOKEN_HERE)}"


class Nodes:
    """Nodes that have joined; close it, or use it as a context.

    Parameters
    ----------
    endpoint
        Where nodes and ranks report.
    num_nodes
        Nodes of the run, this one included.
    num_ranks
        Ranks that fit on this node; a group of no more is started here without torchrun.
    token
        Known to all nodes.

    Raises
    ------
    InfrastructureError
        If nobody can listen there.
    """

    def __init__(self, endpoint: Endpoint, num_nodes: int, num_ranks: int, token: bytes) -> None:
        self.endpoint = endpoint
        self.num_nodes = num_nodes
        self.num_ranks = num_ranks
        self._token = token
        self._joined: list[Node] = []
        self._launches: dict[str, Launch] = {}
        self._lost = ""
        """The node that was lost last: from then on nobody waits for nodes any more."""
        self._hopeless: tuple[Need, str] | None = None
        """What was asked for last, and why nothing was held for it: none of its ranks may start, whoever joins then."""
        self._changed = threading.Condition()
        self._join_deadline: float | None = None
        """From the first need on; what the first group has waited for no later one waits for again."""
        self._is_closing = False
        self._strangers = threading.Semaphore(MAX_STRANGERS)
        self._server = wire.listen(endpoint)
        threading.Thread(target=self._accept, daemon=True, name="nodes").start()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Send all nodes home."""
        self._is_closing = True
        with contextlib.suppress(OSError):  # wakes who waits in accept
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._changed:
            nodes, self._joined = self._joined, []
        for node in nodes:
            with contextlib.suppress(OSError):
                node.line.send({"bye": True})

    def hold(self, need: Need, lease: Lease) -> Iterator[str]:
        """Take the GPUs of a group on all its nodes; yields, while it waits, for whom.

        Machines come in the order of their names, whichever is the head: two runs that want the same ones never
        wait for each other. Where there are too few nodes or slots nothing is held. What is wrong is said by
        :meth:`start`.

        Parameters
        ----------
        need
            What the group needs.
        lease
            Takes those of this node.
        """
        self._hopeless = None
        try:
            shares = self._shares(need.num_ranks, lambda: True)
        except StartFailed as error:
            self._hopeless = need, str(error)
            return  # there will be no group
        here = socket.gethostname()
        for node, share in sorted(shares, key=lambda dealt: dealt[0].name if dealt[0] else here):
            yield from node.hold(need, share) if node else lease.take(share, share)
            if node and node.problem:
                return  # there will be no group

    def release(self) -> None:
        """Let other nodes give back what they hold."""
        for node in self._here():
            node.release()

    def start(
        self,
        need: Need,
        logs: Path,
        modules: Sequence[str],
        devices: Sequence[int],
        wanted: Callable[[], bool],
    ) -> Sequence[Rank]:
        """Start the ranks of one group; they end when they are killed and closed, and torchrun with them.

        Parameters
        ----------
        need
            What the group needs; :meth:`hold` has seen to it, and here nobody is waited for.
        logs
            Folder for the ranks' logs.
        modules
            What ranks need, imported before they are forked.
        devices
            Index of the GPU of each rank on this node, in the order of their places.
        wanted
            Asked now and then; ``False`` gives up.

        Raises
        ------
        StartFailed
            If there are too few nodes or slots, a node lacks something or has other weights, its GPUs are held by
            others, or torchrun does not get its ranks started.
        """
        if self._hopeless and self._hopeless[0] == need:
            raise StartFailed(self._hopeless[1])
        shares = self._shares(need.num_ranks, wanted)
        for node, share in shares:
            if node:
                node.ensure(need, share, wanted)
        launch = Launch(secrets.token_hex(8), need.num_ranks, logs, modules, devices, self._changed)
        with self._changed:
            self._launches = {name: known for name, known in self._launches.items() if not known.is_over}
            self._launches[launch.name] = launch
        rendezvous = str(Endpoint(self.endpoint.host, wire.free_port(self.endpoint.host)))
        for index, (node, share) in enumerate(shares):
            order = LaunchOrder(
                launch.name, str(self.endpoint), rendezvous, index, len(shares), share, timeout_s=RANKS_TIMEOUT_S
            )
            launch.begin(node, order, self._token)
        try:
            return launch.ranks(wanted)
        except StartFailed:
            launch.end()
            raise

    # ------------------------------------------------------------ who is there

    def _here(self) -> list[Node]:
        with self._changed:
            return list(self._joined)

    def _shares(self, num_ranks: int, wanted: Callable[[], bool]) -> list[tuple[Node | None, int]]:
        """Deal ranks to nodes, the head first (``None``); waits for nodes that have not joined yet."""
        with self._changed:
            if self._join_deadline is None:
                self._join_deadline = time.monotonic() + JOIN_TIMEOUT_S
            while True:
                shares = list(_deal(num_ranks, self.num_ranks, self._joined))
                slots = sum(share for _, share in shares)
                if slots == num_ranks:
                    return shares
                here = 1 + len(self._joined)
                if here == self.num_nodes:
                    raise StartFailed(f"{num_ranks} ranks need as many slots; the {here} nodes have {slots}")
                is_late = time.monotonic() > self._join_deadline
                if self._lost or is_late or not wanted():
                    waited = (
                        f" (waited {JOIN_TIMEOUT_S:g} s for node {here + 1} of {self.num_nodes})" if is_late else ""
                    )
                    why = f" ({self._lost} was lost)" if self._lost else waited
                    raise StartFailed(f"{num_ranks} ranks need more than {here} of {self.num_nodes} nodes{why}")
                self._changed.wait(POLL_S)

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                accepted, _ = self._server.accept()
            except OSError:  # closed; or too few descriptors, or who called has hung up: then the next one may get in
                if not self._is_closing:
                    time.sleep(POLL_S)
                continue
            self._strangers.acquire()
            threading.Thread(target=self._admit, args=(accepted,), daemon=True, name="node").start()

    def _admit(self, accepted: socket.socket) -> None:
        try:
            line = wire.admit(accepted, self._token)
        finally:
            self._strangers.release()
        if line is None:
            return
        with contextlib.suppress(EOFError, OSError, LookupError, TypeError, ValueError):  # it speaks another language
            message, _ = line.receive()
            if "launch" in message:
                self._launches[message["launch"]].arrived(line, message)
                return  # the rank has the line now
            self._serve(Node(message["name"], message["num_ranks"], line, self._changed), message)
        line.close()

    def _serve(self, node: Node, message: dict[str, Any]) -> None:
        """Take a node in, and listen to it until it goes."""
        with self._changed:
            refused = self._refusal(message)
            if not refused:
                node.line.send({"welcome": True})  # before it may be told anything else
                self._joined.append(node)
                self._changed.notify_all()
        if refused:
            node.line.send({"refused": refused})
            return
        try:
            while True:
                message, data = node.line.receive()
                if "hold" in message:
                    node.heard(message)
                else:
                    self._launches[message["exited"]].agent_exited(node, message["code"], data)
        finally:
            self._lose(node)

    def _refusal(self, message: dict[str, Any]) -> str:
        if message["num_nodes"] != self.num_nodes:
            return f"--nnodes is {message['num_nodes']} here and {self.num_nodes} on the head; write the same twice"
        if 1 + len(self._joined) >= self.num_nodes:
            return f"all {self.num_nodes} nodes of the run are there already"
        if message["source"] != source():
            what = f"Python, sp-harness, {' or '.join(SAME_EVERYWHERE)}"
            return f"{what} is not what the head has; install the same on all nodes"
        return ""

    def _lose(self, node: Node) -> None:
        with self._changed:
            if node not in self._joined:
                return  # sent home
            self._joined.remove(node)
            self._lost = f"node {node.name}"
            launches = list(self._launches.values())
        node.lose()
        for launch in launches:
            launch.lost(node)


def _deal(num_ranks: int, head: int, joined: Iterable[Node]) -> Iterator[tuple[Node | None, int]]:
    """As many ranks to each as fit, in the order in which they joined."""
    for node, slots in ((None, head), *((node, node.num_ranks) for node in joined)):
        share = min(num_ranks, slots)
        if share:
            yield node, share
        num_ranks -= share
