"""What a group over nodes needs of each of them, and a node that sees to it before any rank is started there."""

from __future__ import annotations

import importlib.metadata
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import models
from harness.errors import HarnessError, InfrastructureError
from harness.execution import gpus
from harness.planning.graph import packages_of
from harness.types import Device, RunSpec

SAME_EVERYWHERE = ("torch", "diffusers", "transformers")
"""Compared when a node joins; what else engines compute with, when it is needed."""


@dataclass(frozen=True)
class Need:
    """What the runs of one group need, as planned on the head."""

    num_ranks: int
    """World size."""
    device: Device
    model: str
    revision: str | None
    model_path: str
    """Where the checkpoint lies on the head."""
    weights: str
    """Its digest."""
    packages: Mapping[str, str]
    """Versions of what engines compute with beyond :data:`SAME_EVERYWHERE`."""
    purpose: str
    """What GPUs are held for, told to others who want them."""

    @classmethod
    def of(cls, specs: Sequence[RunSpec], purpose: str) -> Need:
        """Put together what runs of one group need."""
        first = specs[0]
        named = {package for spec in specs for package in packages_of(spec.engine, spec.cache)}
        return cls(
            num_ranks=first.world_size,
            device=first.case.device,
            model=first.case.model,
            revision=first.case.revision,
            model_path=first.model_path,
            weights=first.weights,
            packages={name: importlib.metadata.version(name) for name in sorted(named - set(SAME_EVERYWHERE))},
            purpose=f"{purpose} on {socket.gethostname()}",
        )


class Reservation:
    """A node's part in one group: that it has what is needed, and GPUs held until :meth:`end`.

    A thread of its own sees to it: a checkpoint may take minutes to read, a GPU an hour to come free. It tells,
    in messages for the head, ``waiting`` for whom, then either ``held``, the GPU of each rank, and
    ``model_path``, or why the node is ``unfit``.

    Parameters
    ----------
    need
        What the group needs.
    num_ranks
        Its ranks on this node.
    tell
        Called with each message.
    """

    def __init__(self, need: Need, num_ranks: int, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._need = need
        self._num_ranks = num_ranks
        self._tell = tell
        self._over = threading.Event()
        threading.Thread(target=self._see_to_it, daemon=True, name="reservation").start()

    def end(self) -> None:
        """Give back what is held, and give up what is waited for."""
        self._over.set()

    def _see_to_it(self) -> None:
        try:
            lease = gpus.Lease(gpus.visible(self._need.device), self._need.purpose)
            try:
                self._prepare(lease)
                self._over.wait()
            finally:
                lease.release()
        except HarnessError as error:
            self._tell({"unfit": str(error)})
        except Exception as error:  # whatever it is, the head must not wait for a thread that is no more
            self._tell({"unfit": f"{type(error).__name__}: {error}"})

    def _prepare(self, lease: gpus.Lease) -> None:
        need = self._need
        _check_packages(need.packages)
        found = models.resolve_planned(need.model, need.revision, need.model_path, need.weights)
        for message in lease.take(self._num_ranks, self._num_ranks, wanted=lambda: not self._over.is_set()):
            self._tell({"waiting": message})
        if self._over.is_set():  # given up, perhaps without a GPU
            return
        self._tell({"held": list(lease.indices(self._num_ranks)), "model_path": found.path})


def _check_packages(wanted: Mapping[str, str]) -> None:
    for name, version in wanted.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            raise InfrastructureError(
                f"its {name} is another ({here}, planned {version}); install the same versions on every node"
            )
