"""Messages between a parent process and its ranks, and the signal that asks for stacks.

Each message is one line of JSON: orders come on a rank's standard input, replies go to a file descriptor of
their own. A rank reads them inside an engine's interpreter, so only the standard library and
:mod:`harness.types` are needed here.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness import codec
from harness.types import Device, DType, FailureKind, RunSpec, Times

STACK_SIGNAL = signal.SIGUSR1
"""Makes a rank print the stacks of all its threads into its log."""


@dataclass(frozen=True)
class Start:
    """The first order of a rank: its place in the group."""

    rank: int
    world_size: int
    device: Device
    device_index: int
    dtype: DType
    model_path: str
    rendezvous: str
    """Meeting point of the group's ranks: a file where all are on one machine, no port that others could hold;
    else ``tcp://HOST:PORT``, served by rank 0."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Values that the group's engine needs when it loads."""


@dataclass(frozen=True)
class Order:
    """Make an engine ready or, where a ``spec`` is given, draw; rank 0 leaves its files in ``folder``."""

    engine: str
    spec: RunSpec | None = None
    folder: str = ""


@dataclass(frozen=True)
class Ready:
    """The engine of the last order is loaded; versions of what it computes with."""

    versions: Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """Number of denoise steps done; sent by rank 0."""

    step: int


@dataclass(frozen=True)
class Done:
    """The run is drawn; fields of :class:`~harness.types.Run` of the same name, files on rank 0 alone."""

    peak_memory_bytes: int
    counters: Mapping[str, int] = field(default_factory=dict)
    cache_decisions: tuple[bool, ...] = ()
    images: tuple[str, ...] = ()
    latents: str | None = None
    times: Times = field(default_factory=Times)
    caption_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Raised:
    """The order ended with an exception: its first line, its traceback, and what the machine lacks."""

    message: str
    detail: str
    machine: FailureKind | None = None


@dataclass(frozen=True)
class Unwritable:
    """The system refused to write the run's files into ``folder``."""

    folder: str
    errno: int


Reply = Ready | Step | Done | Raised | Unwritable
Message = Start | Order | Reply
_KINDS: Mapping[str, type[Message]] = {
    kind.__name__: kind for kind in (Start, Order, Ready, Step, Done, Raised, Unwritable)
}


def encode(message: Message) -> bytes:
    """Encode a message as one line, its kind included."""
    return json.dumps({"kind": type(message).__name__, **codec.encode(message)}).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """Decode a line of :func:`encode`.

    Raises
    ------
    ValueError
        If it is no such line.
    """
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("kind") not in _KINDS:
        raise ValueError(f"no message of the worker protocol: {line!r}")
    return codec.decode(_KINDS[data["kind"]], data)
