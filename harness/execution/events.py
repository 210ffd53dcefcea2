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
    """Other runs on this machine have the GPUs that are needed now."""

    message: str


@dataclass(frozen=True)
class Holding:
    """GPUs that nobody else gets from now on, by index; none when they have been given back."""

    devices: tuple[int, ...]


Event = Started | Stepped | Finished | Waiting | Holding

FolderOf = Callable[[RunSpec], Path]
"""Where the folder of a run is to appear."""
