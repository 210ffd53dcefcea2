"""Events that every executor yields while runs are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.types import Run, RunSpec


@dataclass(frozen=True)
class Started:
    """A worker group has begun a run."""

    spec: RunSpec


@dataclass(frozen=True)
class Stepped:
    """A run has done this many denoise steps."""

    spec: RunSpec
    step: int


@dataclass(frozen=True)
class Finished:
    """A run is over, well or badly, and on disk."""

    run: Run


@dataclass(frozen=True)
class Waiting:
    """A wait, for GPUs that other runs hold, or for another place in a cluster."""

    message: str


@dataclass(frozen=True)
class Holding:
    """GPUs held from now on, by index; none when they have been given back."""

    devices: tuple[int, ...]


Event = Started | Stepped | Finished | Waiting | Holding

FolderOf = Callable[[RunSpec], Path]
"""Final place of a run's folder."""
