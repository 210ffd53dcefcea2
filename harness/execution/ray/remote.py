"""What a Ray task does on the node it was placed on: look whether the node is fit, compute, send back.

The task is a generator; each message travels by itself, files in pieces, so that neither side ever holds
a whole run in memory and what has been sent stays when the node is lost.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import codec, models
from harness.errors import HarnessError
from harness.execution.events import Event, Finished, Started, Stepped, Waiting
from harness.execution.pool import Pool
from harness.planning.fingerprint import source_of
from harness.types import RunSpec

PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class Placed:
    """The task has begun, on this node."""

    node: str
    node_id: str


@dataclass(frozen=True)
class Unfit:
    """The node would compute something else than what was planned."""

    reason: str


@dataclass(frozen=True)
class Begun:
    """A run has begun."""

    digest: str


@dataclass(frozen=True)
class Reached:
    """A run has done this many denoise steps."""

    digest: str
    step: int


@dataclass(frozen=True)
class Queued:
    """Other runs have the GPUs that this task was given; they know nothing of ray."""

    message: str


@dataclass(frozen=True)
class Piece:
    """The next bytes of a file: of a run's folder, or of the logs where there is no digest."""

    digest: str
    name: str
    data: bytes


@dataclass(frozen=True)
class Over:
    """A run is over and all its files have been sent; ``run`` is its ``run.json``."""

    digest: str
    run: Any


Message = Placed | Unfit | Queued | Begun | Reached | Piece | Over


def work(encoded: Sequence[Any], num_cpus: int) -> Iterator[Message]:
    """Compute runs on this node.

    Parameters
    ----------
    encoded
        The runs, as :func:`harness.codec.encode` leaves them: plain values, which a node with other code can
        read well enough to say that it is unfit.
    num_cpus
        Cores that this task may use; 0 where GPUs are what it was given.
    """
    import ray

    yield Placed(platform.node(), ray.get_runtime_context().get_node_id())
    try:
        specs = [_here(codec.decode(RunSpec, data)) for data in encoded]
    except (HarnessError, ValueError) as error:
        yield Unfit(str(error))
        return
    with tempfile.TemporaryDirectory(prefix="sp-harness-ray-") as name:
        place = Path(name)
        with Pool(place / "logs", keep=num_cpus > 0) as pool:
            for portion in _portions(specs, num_cpus):
                for event in pool.execute(portion, lambda spec: place / spec.digest):
                    yield from _messages(event, place)
        yield from _pieces("", place / "logs")


def _here(spec: RunSpec) -> RunSpec:
    """Find a run's model on this node; a run is the same wherever its model lies."""
    source = source_of(spec.engine, spec.cache)
    if source != spec.source:
        raise HarnessError(
            f"its code or libraries for {spec.engine} are others ({source}, here {spec.source}); "
            "install the same sp-harness and the same versions on every node"
        )
    model = models.resolve_planned(spec.case.model, spec.case.revision, spec.model_path, spec.weights)
    return replace(spec, model_path=model.path)


def _portions(specs: Sequence[RunSpec], num_cpus: int) -> Iterator[Sequence[RunSpec]]:
    """Hand out runs so that no more work side by side than the task has cores; GPUs are counted by ray itself."""
    single = [spec for spec in specs if spec.world_size == 1 and not spec.sequence]
    if num_cpus == 0 or num_cpus >= len(single):
        yield specs
        return
    for start in range(0, len(single), num_cpus):
        yield single[start : start + num_cpus]
    yield [spec for spec in specs if spec not in single]


def _messages(event: Event, place: Path) -> Iterator[Message]:
    if isinstance(event, Waiting):
        yield Queued(event.message)
    elif isinstance(event, Started):
        yield Begun(event.spec.digest)
    elif isinstance(event, Stepped):
        yield Reached(event.spec.digest, event.step)
    elif isinstance(event, Finished):
        digest = event.run.spec.digest
        yield from _pieces(digest, place / digest, left_out=("run.json",))
        yield Over(digest, codec.encode(event.run))
        shutil.rmtree(place / digest)


def _pieces(digest: str, folder: Path, left_out: Sequence[str] = ()) -> Iterator[Piece]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in left_out:
            with path.open("rb") as file:
                while data := file.read(PIECE_BYTES):
                    yield Piece(digest, path.relative_to(folder).as_posix(), data)
