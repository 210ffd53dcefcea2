"""Executors: runs computed on this machine, or on those of a Ray cluster.

An executor computes runs and yields what happens. :class:`~harness.execution.pool.Pool` is the one of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from harness.errors import UsageError, did_you_mean
from harness.execution.events import Event, FolderOf
from harness.execution.pool import Pool
from harness.types import RunSpec

NAMES = ("local", "ray")


class Executor(Protocol):
    """Computes runs; close it, or use it as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def execute(self, specs: Sequence[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
        """Compute runs and yield events as they happen; leaving the loop early ends the work.

        Every run ends with a :class:`~harness.execution.events.Finished`; its folder is then on this machine's disk.
        """

    def close(self) -> None:
        """End all work."""


Make = Callable[[Path], Executor]
"""Makes an executor whose logs go into a folder."""


def maker(name: str = "local", ray_address: str | None = None) -> Make:
    """Find an executor by its name.

    Raises
    ------
    UsageError
        If there is none of this name, or an address is given to one that has no use for it, or ray is not
        installed.
    """
    if name not in NAMES:
        raise UsageError(f"--executor {name!r}: {did_you_mean(name, NAMES)}")
    if name == "local":
        if ray_address is not None:
            raise UsageError("--ray-address names a Ray cluster; add --executor ray")
        return Pool
    from harness.execution.ray.cluster import check_installed
    from harness.execution.ray.executor import RayExecutor

    check_installed()
    return lambda logs: RayExecutor(logs, ray_address)
