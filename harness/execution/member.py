"""A joined node, as it sees itself: it holds GPUs, and starts and ends agents of torchrun, as the head says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from harness.errors import EXIT_OK, UsageError
from harness.execution.nodes import source
from harness.execution.reservation import Need, Reservation
from harness.execution.torchrun import Agent, LaunchOrder
from harness.execution.wire import Line


class Member:
    """A node that has called the head.

    Parameters
    ----------
    line
        The line to the head.
    token
        Known to all nodes.
    scratch
        Folder for what agents print.
    """

    def __init__(self, line: Line, token: bytes, scratch: Path) -> None:
        self._line = line
        self._token = token
        self._scratch = scratch
        self._agents: dict[str, Agent] = {}
        self._reservations: dict[int, Reservation] = {}

    def serve(self, num_nodes: int, num_ranks: int) -> int:
        """Start and end agents as the head says; the exit code.

        Parameters
        ----------
        num_nodes, num_ranks
            Nodes of the run, as said on the command line; ranks that fit here.

        Raises
        ------
        UsageError
            If the head refuses this node.
        EOFError, OSError
            If the head goes without a word.
        """
        hello = {"name": socket.gethostname(), "num_nodes": num_nodes, "num_ranks": num_ranks, "source": source()}
        self._line.send(hello)
        answer, _ = self._line.receive()
        if "refused" in answer:
            raise UsageError(f"the head refuses this node: {answer['refused']}")
        typer.echo(f"joined as {hello['name']}, {num_ranks} ranks at most")
        try:
            while True:
                message, _ = self._line.receive()
                if "bye" in message:
                    return EXIT_OK
                self._obey(message)
        finally:
            for agent in self._agents.values():
                agent.end()
            for reservation in self._reservations.values():
                reservation.end()

    def _obey(self, message: dict[str, Any]) -> None:
        if "hold" in message:
            number = message["hold"]
            tell = partial(self._tell, number)
            self._reservations[number] = Reservation(Need(**message["need"]), message["num_ranks"], tell)
        elif "release" in message and (reservation := self._reservations.pop(message["release"], None)):
            reservation.end()
        elif "begin" in message:
            self._begin(LaunchOrder(**message["begin"]))
        elif "end" in message and (agent := self._agents.pop(message["end"], None)):
            agent.end()

    def _tell(self, number: int, message: Mapping[str, Any]) -> None:
        """Tell the head, and whoever looks at this node, what has become of a hold."""
        if words := message.get("waiting", message.get("unfit")):
            typer.echo(words)
        with contextlib.suppress(OSError):  # the head is gone
            self._line.send({"hold": number, **message})

    def _begin(self, order: LaunchOrder) -> None:
        log = self._scratch / f"torchrun-{order.launch}.log"
        exited = partial(self._exited, order.launch, log)
        self._agents[order.launch] = Agent(order, self._token, self._line.local_host, log, exited)

    def _exited(self, launch: str, log: Path, code: int) -> None:
        with contextlib.suppress(OSError):  # the head is gone, or its word came first
            self._line.send({"exited": launch, "code": code}, log.read_bytes()[-16_000:])
