"""Work of one node of a placement group: its check against the plan, and ranks of groups over several nodes.

The first node of a placement group runs the task (:mod:`harness.execution.ray.task`); each of the others runs a
:class:`Node`, an actor that forks ranks as everywhere and sends on what they reply, print and leave.
"""

from __future__ import annotations

import os
import platform
import select
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import codec, models
from harness.errors import HarnessError, InfrastructureError
from harness.execution import gpus
from harness.execution.rank import ForkedRank
from harness.planning.fingerprint import source_of
from harness.scratch import Scratch
from harness.types import RunSpec
from harness.worker import protocol
from harness.worker.protocol import Done, Order, Start, Unwritable

PIECE_BYTES = 4 << 20
LOOK_S = 0.1
"""Interval at which the log of a rank is read while it does not reply."""


@dataclass(frozen=True)
class Piece:
    """The next bytes of a file: of a run's folder, or of the logs where there is no digest."""

    digest: str
    name: str
    data: bytes


def pieces(digest: str, folder: Path, left_out: Sequence[str] = ()) -> Iterator[Piece]:
    """Read all files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in left_out:
            with path.open("rb") as file:
                while data := file.read(PIECE_BYTES):
                    yield Piece(digest, path.relative_to(folder).as_posix(), data)


@contextmanager
def named() -> Iterator[None]:
    """Name this node in the errors of the harness that are raised inside the context."""
    try:
        yield
    except HarnessError as error:
        raise InfrastructureError(f"node {platform.node()}: {error}") from None


def found_here(encoded: Sequence[Any]) -> list[RunSpec]:
    """Find the models of planned runs on this node; a run is the same wherever its model lies.

    Parameters
    ----------
    encoded
        The runs, as :func:`harness.codec.encode` leaves them: plain values, which a node with other code can read.

    Raises
    ------
    HarnessError
        If code, libraries or weights are others than those planned.
    """
    try:
        planned = [codec.decode(RunSpec, data) for data in encoded]
    except ValueError as error:
        raise HarnessError(f"its code cannot read the runs planned ({error}); install the same sp-harness") from None
    specs = []
    for spec in planned:
        source = source_of(spec.engine, spec.cache, spec.interpreter)
        if source != spec.source:
            raise HarnessError(
                f"its code or libraries for {spec.engine} are others ({source}, planned {spec.source}); "
                "install the same sp-harness and the same versions on every node"
            )
        model = models.resolve_planned(spec.case.model, spec.case.revision, spec.model_path, spec.weights)
        specs.append(replace(spec, model_path=model.path))
    return specs


def use_interface(address: str) -> None:
    """Let gloo and NCCL use the network interface by which ray reaches this node, unless a user chose another."""
    import psutil  # type: ignore[import-untyped]

    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


class Node:
    """Actor that starts the ranks of one node; each is known by its number in the group, over all nodes."""

    def __init__(self) -> None:
        self._scratch = Scratch("sp-harness-ray-")
        self._folder = self._scratch.path
        self._processes: dict[int, ForkedRank] = {}
        self._digests: dict[int, str] = {}
        self._models: dict[str, str] = {}
        self._devices: dict[int, int] = {}
        self._lease: gpus.Lease | None = None

    def prepare(self, encoded: Sequence[Any], ranks: range, purpose: str) -> Iterator[str]:
        """Check this node against the plan and hold its GPUs; yields its name, then messages during a wait."""
        import ray

        yield platform.node()
        with named():
            specs = found_here(encoded)
            self._models = {data["model_path"]: spec.model_path for data, spec in zip(encoded, specs, strict=True)}
            use_interface(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
            self._lease = gpus.Lease(gpus.visible(specs[0].case.device), purpose)
            yield from self._lease.take(len(ranks), len(ranks))
            self._devices = dict(zip(ranks, self._lease.indices(len(ranks)), strict=True))

    def start(self, rank: int, modules: Sequence[str], python: str) -> None:
        """Fork a rank."""
        self._log(rank).unlink(missing_ok=True)
        self._processes[rank] = ForkedRank(self._log(rank), modules, python=python)

    def follow(self, rank: int) -> Iterator[Piece | bytes]:
        """Stream the log, files and replies of a rank (lines of the worker protocol) until it ends."""
        process = self._processes[rank]
        lines: list[bytes] | None = []
        with self._log(rank).open("rb") as log:
            while lines is not None:
                is_ready, _, _ = select.select([process.replies], [], [], LOOK_S)
                lines = process.read_lines() if is_ready else []
                while data := log.read(PIECE_BYTES):
                    yield Piece("", self._log(rank).name, data)
                for line in lines or ():
                    yield from self._reply(rank, line)
            process.wait()
            yield Piece("", self._log(rank).name, log.read())
        process.close()

    def write(self, rank: int, line: bytes) -> None:
        """Hand an order to a rank, with the paths and GPUs of this node."""
        order = protocol.decode(line)
        if isinstance(order, Start):
            order = replace(order, model_path=self._models[order.model_path], device_index=self._devices[rank])
        elif isinstance(order, Order) and order.spec:
            shutil.rmtree(self._left(rank), ignore_errors=True)
            self._left(rank).mkdir()
            self._digests[rank] = order.spec.digest
            order = replace(order, folder=str(self._left(rank)))
        self._processes[rank].write(protocol.encode(order))

    def ask(self, rank: int, method: str) -> Any:
        """Call a method of a rank (see :class:`~harness.execution.rank.Rank`)."""
        return getattr(self._processes[rank], method)()

    def close(self) -> None:
        """End all ranks and give the GPUs back."""
        for process in self._processes.values():
            process.kill()
        if self._lease:
            self._lease.release()
        self._scratch.remove()

    def _log(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.log"

    def _left(self, rank: int) -> Path:
        """Folder of the files that a rank leaves."""
        return self._folder / f"rank-{rank}"

    def _reply(self, rank: int, line: bytes) -> Iterator[Piece | bytes]:
        reply = protocol.decode(line)
        if isinstance(reply, Done):
            yield from pieces(self._digests[rank], self._left(rank))
        elif isinstance(reply, Unwritable):
            reply = replace(reply, folder=f"node {platform.node()}: {reply.folder}")
        yield protocol.encode(reply)
