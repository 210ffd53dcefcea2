"""Groups of ranks over several nodes of a placement group, seen from its first node."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.execution.rank import Rank, fork_ranks
from harness.execution.ray.node import Node, Piece, use_interface
from harness.worker import protocol
from harness.worker.protocol import Order, Start, Unwritable

ANSWER_S = 30.0
"""Time limit of a node's answer, after which the node counts as lost."""
LAST_OUTPUT_S = 5.0
"""Time limit of the last output of a rank that was ended."""


@dataclass
class _Part:
    """Ranks of one node, by their number in the group."""

    actor: Any
    ranks: range
    node: str = "?"


class Nodes:
    """Actors on the nodes of this task's placement group, but for the first, where the task itself runs.

    Parameters
    ----------
    shares
        Number of ranks that each node holds, the first node's first.
    """

    def __init__(self, shares: Sequence[int]) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._local = shares[0]
        self._address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._parts: list[_Part] = []
        place = ray.util.get_current_placement_group()
        assert place is not None
        for index, share in enumerate(shares[1:], start=1):
            strategy = PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=index)
            actor = ray.remote(Node).options(max_concurrency=share + 4, scheduling_strategy=strategy).remote()
            first = sum(shares[:index])
            self._parts.append(_Part(actor, range(first, first + share)))

    def prepare(self, encoded: Sequence[Any], purpose: str) -> Iterator[str]:
        """Check all nodes and hold their GPUs; yields messages while one waits for GPUs.

        Raises
        ------
        InfrastructureError
            If a node would compute something else than what was planned.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        use_interface(self._address)
        for part in self._parts:
            try:
                replies = part.actor.prepare.options(num_returns="streaming").remote(encoded, part.ranks, purpose)
                part.node = ray.get(next(replies))
                for reply in replies:
                    yield f"node {part.node}: {ray.get(reply)}"
            except RayTaskError as error:
                raise error.cause from None
            except RayError:
                pass  # it is lost, and so are the ranks that are to start there

    def start(self, logs: Path, modules: Sequence[str], devices: Sequence[int], python: str = "") -> Iterator[Rank]:
        """Start the ranks of a group, on this node as far as they fit; rank 0 serves a rendezvous for the others."""
        yield from fork_ranks(logs, modules, devices[: self._local], python)
        with socket.create_server((self._address, 0)) as free:
            rendezvous = f"tcp://{self._address}:{free.getsockname()[1]}"
        for part in self._parts:
            for rank in part.ranks[: max(0, len(devices) - part.ranks.start)]:
                log = logs / f"rank-{rank}.log"
                yield RemoteRank(part.actor, part.node, rank, log, modules, rendezvous, python)

    def close(self) -> None:
        """End all ranks on the other nodes."""
        import ray

        ends = [part.actor.close.remote() for part in self._parts]
        ray.wait(ends, num_returns=len(ends), timeout=ANSWER_S)


class RemoteRank(Rank):
    """A rank on another node, reached through the node's actor.

    Parameters
    ----------
    actor
        Handle of the :class:`~harness.execution.ray.node.Node`.
    node
        The node's name.
    rank, log, modules, rendezvous, python
        Its number; the local copy of its log; modules to import before; meeting point of its group; interpreter.
    """

    def __init__(
        self, actor: Any, node: str, rank: int, log: Path, modules: Sequence[str], rendezvous: str, python: str
    ) -> None:
        log.touch()
        self.rendezvous = rendezvous
        self.node = node
        self._actor = actor
        self._rank = rank
        self._folder = Path()
        self._ask("start", rank, modules, python)
        replies, arrived = os.pipe()
        super().__init__(log, replies, 0)
        self._listener = threading.Thread(target=self._listen, args=(arrived,), daemon=True, name=f"rank {rank}")
        self._listener.start()

    def send(self, order: Start | Order) -> None:
        """Send an order; its files are copied into the order's folder here."""
        if isinstance(order, Order):
            self._folder = Path(order.folder)
        super().send(order)

    def write(self, line: bytes) -> None:
        """Send a line."""
        self._ask("write", self._rank, line)

    def poll(self) -> int | None:
        """Ask for the exit code; that of a killed process where the node is lost."""
        code: int | None = self._ask("ask", self._rank, "poll")
        return -signal.SIGKILL if self.lost else code

    def wait(self) -> int:
        """Wait for the end."""
        code: int | None = self._ask("ask", self._rank, "wait")
        return -signal.SIGKILL if code is None else code

    def print_stacks(self) -> None:
        """Send the signal that a rank answers with its stacks."""
        self._ask("ask", self._rank, "print_stacks")

    def stopped(self) -> str:
        """Ask for its state."""
        return self._ask("ask", self._rank, "stopped") or ""

    def kill(self) -> None:
        """End its process session."""
        self._ask("ask", self._rank, "kill")

    def close(self) -> None:
        """Wait for its last output."""
        self._listener.join(LAST_OUTPUT_S)
        os.close(self.replies)

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call the actor; ``None`` once its node is lost."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        if self.lost:
            return None
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=ANSWER_S)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            self.lost = f"node {self.node} does not answer any more ({type(error).__name__})"

    def _listen(self, arrived: int) -> None:
        """Take what comes from the rank; its pipe here closes with the stream."""
        import ray
        from ray.exceptions import RayError

        with os.fdopen(arrived, "wb", buffering=0) as replies:
            try:
                for reply in self._actor.follow.options(num_returns="streaming").remote(self._rank):
                    part = ray.get(reply)
                    replies.write(self._keep(part) if isinstance(part, Piece) else part)
            except RayError as error:
                self.lost = f"node {self.node} does not answer any more ({type(error).__name__})"
            except BrokenPipeError:  # closed: the group has ended
                pass

    def _keep(self, piece: Piece) -> bytes:
        """Write a part of a file here; a reply in the rank's place where that cannot be done."""
        path = self._folder / piece.name if piece.digest else self.log
        try:
            with path.open("ab") as file:
                file.write(piece.data)
        except OSError as error:
            return protocol.encode(Unwritable(str(path.parent), error.errno or 0))
        return b""
