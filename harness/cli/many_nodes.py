"""``run --nnodes`` and ``join``: one picture over several machines, from either end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer

from harness.errors import InfrastructureError, UsageError
from harness.execution import gpus, wire
from harness.execution.executor import Make
from harness.execution.member import Member
from harness.execution.nodes import JOIN_TIMEOUT_S, Nodes
from harness.execution.pool import Pool, num_slots
from harness.execution.wire import Endpoint


@dataclass(frozen=True)
class Head:
    """What the command line says of a run over several nodes."""

    endpoint: Endpoint
    num_nodes: int
    num_ranks: int
    token: bytes

    @classmethod
    def of(
        cls, num_nodes: int, endpoint: str | None, num_ranks: int | None, token_file: Path | None, executor: str
    ) -> Head | None:
        """Check the options of ``run``; ``None`` where there is one node.

        Raises
        ------
        UsageError
            If an option lacks another, or contradicts it.
        """
        if num_nodes == 1:
            if endpoint or num_ranks or token_file:
                raise UsageError("--rdzv-endpoint, --nproc-per-node and --token-file mean several nodes; add --nnodes")
            return None
        if endpoint is None:
            raise UsageError(f"--nnodes {num_nodes} needs --rdzv-endpoint HOST:PORT, an address of this machine")
        if executor != "local":
            raise UsageError(f"--nnodes and --executor {executor} both spread a run; leave one out")
        return cls(Endpoint.parse(endpoint), num_nodes, num_ranks or _num_slots(), wire.read_token(token_file))

    @contextmanager
    def open(self) -> Iterator[Make]:
        """Let nodes join for the length of the context; yields what computes runs with them."""
        with Nodes(self.endpoint, self.num_nodes, self.num_ranks, self.token) as nodes:
            typer.echo(
                f"groups of more than {self.num_ranks} ranks wait for {self.num_nodes - 1} other nodes: "
                f"sp-harness join --nnodes {self.num_nodes} --rdzv-endpoint {self.endpoint}"
            )
            yield partial(Pool, nodes=nodes)


def join(num_nodes: int, endpoint: str, num_ranks: int | None, token_file: Path | None) -> int:
    """Serve a head until it is done; the exit code.

    Raises
    ------
    UsageError
        If the head refuses this node.
    InfrastructureError
        If the head does not answer, or goes without a word.
    """
    where = Endpoint.parse(endpoint)
    token = wire.read_token(token_file)
    line = wire.call(where, token, JOIN_TIMEOUT_S)
    with contextlib.closing(line), tempfile.TemporaryDirectory(prefix="sp-harness-") as scratch:
        try:
            return Member(line, token, Path(scratch)).serve(num_nodes, num_ranks or _num_slots())
        except (EOFError, OSError):
            raise InfrastructureError(f"{where}: the head of the run is gone") from None


def _num_slots() -> int:
    return len(gpus.visible("cuda")) or num_slots("cpu")
