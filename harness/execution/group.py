"""Worker groups: start, time limits, and the end of ranks that fail or hang.

A group is all ranks of one world size, model and engine; engines that say so share it. It stays
while it has work; when one of its runs fails it is killed as a whole (the other ranks may wait in a
collective for ever) and started anew for the next run.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from harness import codec, files
from harness.errors import InfrastructureError, remedy_of
from harness.execution import failures
from harness.execution.group_key import GroupKey
from harness.execution.rank import Rank, fork_ranks
from harness.execution.time_limit import LOOK_S, TimeLimit
from harness.scratch import Scratch
from harness.types import Failure, FailureKind, Recorded, Run, RunSpec
from harness.worker import protocol
from harness.worker.protocol import Done, Message, Order, Raised, Ready, Start, Step

START_TIMEOUT_S = 600.0
"""Loading a full-size checkpoint from a slow disk takes minutes."""

OF_THE_MACHINE = (
    FailureKind.OUT_OF_MEMORY,
    FailureKind.DISK_FULL,
    FailureKind.KILLED,
    FailureKind.STOPPED,
    FailureKind.EXHAUSTED,
)
"""Kinds of failure that are recorded as such in the middle of a launch too."""
INTERRUPTED = Failure(FailureKind.KILLED, "the harness was interrupted")

OnStep = Callable[[int], None]
StartRanks = Callable[[Path, Sequence[str], Sequence[int], str], Iterable[Rank]]
"""Starts ranks in their order: the folder of their logs, modules to import before, the GPU of each here, and the
interpreter of another environment."""
Awaited = TypeVar("Awaited", Ready, Done)


class GroupFailed(Exception):
    """The group cannot go on; carries what to record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Aborted(Exception):
    """The harness itself ended the group; nothing is to be recorded."""


class WorkerGroup:
    """The ranks of one group, driven from one thread of the parent.

    Parameters
    ----------
    key
        What the group serves.
    logs
        Folder of its ranks' logs.
    devices
        Index of each rank's GPU, of those on this machine; may change while no rank is up.
    modules
        What ranks need, imported before they are forked.
    start
        Starts the ranks, all on this machine by default.
    """

    def __init__(
        self,
        key: GroupKey,
        logs: Path,
        devices: Sequence[int] = (),
        modules: Sequence[str] = (),
        start: StartRanks = fork_ranks,
    ) -> None:
        self.key = key
        self._logs = logs
        self.devices = devices or range(key.world_size)
        self._modules = modules
        self._start_ranks = start
        self._meeting: Scratch | None = None
        """Folder of the file through which ranks on this machine find each other."""
        self._ranks: list[Rank] = []
        self._versions: dict[str, Mapping[str, str]] = {}
        self._aborted = False
        self._broken: Failure | None = None
        """Failure that ended a sequence: a new group would not have served its earlier requests."""
        self._busy = threading.RLock()
        """Held by whoever drives the group, who then also cleans up after it."""

    def ensure(self, engine: str) -> None:
        """Start the ranks if they are not up, and make an engine ready on all of them.

        Raises
        ------
        GroupFailed
            If a rank ends, raises or takes too long while it gets ready.
        """
        try:
            if not self._ranks:
                self._start()
            if engine not in self._versions:
                self._send(Order(engine))
                versions = [ready.versions for ready in self._collect(Ready, START_TIMEOUT_S)]
                if failure := failures.unlike(self._ranks, versions):
                    raise GroupFailed(failure)
                self._versions[engine] = versions[0]
        except GroupFailed as error:
            failure = error.failure
            kind, verb = FailureKind.LAUNCH, "start"
            if failure.kind in OF_THE_MACHINE:
                kind = failure.kind
            elif failure.kind == FailureKind.RAISED and self._ranks[failure.rank or 0].poll() is None:
                kind, verb = failure.kind, "load"  # a rank that lives to say so was started
            message = f"{engine} did not {verb}: {failure.message}"
            raise GroupFailed(Failure(kind, message, failure.rank, failure.detail)) from None

    def run(self, spec: RunSpec, folder: Path, on_step: OnStep = lambda step: None) -> Run:
        """Serve one run; what an engine does wrong is recorded, never raised.

        Parameters
        ----------
        spec
            The run; its case's ``timeout_s`` limits it.
        folder
            The run's folder, which appears whole at the end: after a crash the run counts as not drawn.
        on_step
            Called with the number of denoise steps done.

        Raises
        ------
        Aborted
            If :meth:`abort` was called meanwhile; no folder is left.
        InfrastructureError
            If the folder cannot be written; nothing is left of it.
        """
        with self._busy:
            try:
                with files.replacing(folder) as building:
                    run = self._run(spec, building, on_step)
                    run = replace(run, files=recorded(building, run.file_names))
                    codec.write_json(building / "run.json", run)
            except failures.Unwritable as error:
                self.kill()
                place = "" if error.place == str(files.building(folder).absolute()) else error.place
                raise cannot_write(folder, error.error, place) from None
            except OSError as error:
                raise cannot_write(folder, error) from None
        return run

    def _run(self, spec: RunSpec, building: Path, on_step: OnStep) -> Run:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        started = time.monotonic()
        try:
            if self._broken:
                raise GroupFailed(self._broken)
            self.ensure(spec.engine)
            started = time.monotonic()
            result = self._draw(spec, building, on_step)
        except GroupFailed as error:
            self.kill()
            if self._aborted:
                raise Aborted from None
            failure = error.failure
            outcome = "timeout" if failure.kind == FailureKind.HUNG else "error"
            result = {"outcome": outcome, "failure": failure}
            if self.key.sequence and not self._broken:
                message = f"not served: the sequence broke at {spec.case.name} ({failure.message})"
                self._broken = Failure(failure.kind, message, failure.rank)
        wall_s = round(time.monotonic() - started, 4)
        versions = self._versions.get(spec.engine, {})
        return Run(spec=spec, wall_s=wall_s, started_at=started_at, versions=versions, **result)

    def kill(self) -> None:
        """End every rank now, with all that its engine started."""
        with self._busy:
            for rank in self._ranks:
                rank.kill()
                rank.close()
            self._ranks, self._versions = [], {}
            if self._meeting:
                self._meeting.remove()
                self._meeting = None

    def abort(self) -> None:
        """End the ranks from another thread; a run under way raises :class:`Aborted`."""
        self._aborted = True
        for rank in list(self._ranks):
            rank.kill()
        if self._busy.acquire(blocking=False):
            try:
                self.kill()
            finally:
                self._busy.release()

    # ------------------------------------------------------------ talking to ranks

    def _start(self) -> None:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            self._meeting = Scratch("sp-harness-run-")
            for rank in self._start_ranks(self._logs, self._modules, self.devices, self.key.python):
                self._ranks.append(rank)
        except OSError as error:  # no descriptor, no process or no room on the disk is left
            place = f": {error.filename}" if error.filename else ""
            remedy = f"{remedy_of(error)}; then finish with: sp-harness run --resume RUN"
            message = f"ranks cannot be started ({error.strerror or error}{place}); {remedy}"
            raise GroupFailed(Failure(FailureKind.LAUNCH, message)) from None
        if self._aborted:  # asked after the ranks are known: either we see it here, or abort() sees the ranks
            raise GroupFailed(INTERRUPTED)
        assert self._meeting is not None
        rendezvous = next((rank.rendezvous for rank in self._ranks if rank.rendezvous), f"{self._meeting.path}/store")
        for index, rank in enumerate(self._ranks):
            rank.send(
                Start(
                    rank=index,
                    world_size=self.key.world_size,
                    device=self.key.device,
                    device_index=rank.device_index,
                    dtype=self.key.dtype,
                    model_path=self.key.model_path,
                    rendezvous=rendezvous,
                    configuration=dict(self.key.configuration),
                )
            )

    def _draw(self, spec: RunSpec, folder: Path, on_step: OnStep) -> dict[str, Any]:
        for rank in self._ranks:
            rank.mark_log()
        self._send(Order(spec.engine, spec, str(folder.absolute())))
        done = self._collect(Done, spec.case.timeout_s, on_step)
        first = done[0]
        return {
            "outcome": "ok",
            "images": first.images,
            "latents": first.latents,
            "times": first.times,
            "caption_tokens": first.caption_tokens,
            "peak_memory_bytes": tuple(reply.peak_memory_bytes for reply in done),
            "counters": _sums([reply.counters for reply in done]),
            "cache_decisions": tuple(reply.cache_decisions for reply in done if reply.cache_decisions),
        }

    def _send(self, order: Order) -> None:
        for rank in self._ranks:
            rank.send(order)

    def _collect(self, kind: type[Awaited], timeout_s: float, on_step: OnStep = lambda step: None) -> list[Awaited]:
        """Wait until every rank has sent a reply of a kind; the first failure ends the wait."""
        found: dict[int, Awaited] = {}
        limit = TimeLimit(timeout_s)
        with selectors.DefaultSelector() as selector:
            for index, rank in enumerate(self._ranks):
                selector.register(rank.replies, selectors.EVENT_READ, index)
            while len(found) < len(self._ranks):
                if self._aborted:
                    raise GroupFailed(INTERRUPTED)
                answered = selector.select(min(limit.left_s, LOOK_S))
                if is_over := limit.is_over([self._ranks[index] for index in self._missing(found)]):
                    answered = selector.select(0)  # what was answered in time is read before
                for key, _ in answered:
                    for reply in self._read(key.data):
                        if isinstance(reply, Step):
                            on_step(reply.step)
                        elif isinstance(reply, kind):
                            found[key.data] = reply
                        elif isinstance(reply, protocol.Unwritable):
                            raise failures.Unwritable(reply)
                        elif isinstance(reply, Raised):
                            raise GroupFailed(failures.raised(self._ranks, key.data, reply))
                if is_over and (missing := self._missing(found)):
                    raise GroupFailed(failures.hung(self._ranks, missing, timeout_s))
        return [found[index] for index in range(len(self._ranks))]

    def _missing(self, found: Container[int]) -> list[int]:
        return [index for index in range(len(self._ranks)) if index not in found]

    def _read(self, index: int) -> list[Message]:
        """Replies that have arrived from one rank; its end is a failure."""
        replies = self._ranks[index].read()
        if replies is None:
            raise GroupFailed(failures.ended(self._ranks, index))
        return replies


def _sums(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for each in counters for name in each})
    return {name: sum(each.get(name, 0) for each in counters) for name in names}


def recorded(folder: Path, names: Iterable[str]) -> dict[str, Recorded]:
    """Describe files as they are now, so that it shows later whether they were damaged."""
    return {name: Recorded((folder / name).stat().st_size, files.sha256(folder / name)) for name in names}


def cannot_write(folder: Path, error: OSError, place: str = "") -> InfrastructureError:
    """Make the error of a run's folder that cannot be written: a full disk, say, or one without permission.

    Parameters
    ----------
    folder
        Final place of the run.
    error
        The system's error.
    place
        Place of the error where it is another: ranks on other nodes leave their files there first.
    """
    planned = next((parent for parent in folder.parents if (parent / "plan.json").is_file()), "RUN")
    remedy = f"mend that, then finish with: sp-harness run --resume {planned}"
    return InfrastructureError(f"{place or folder}: a run cannot be written ({error.strerror or error}); {remedy}")
