"""Runs on the machines of a Ray cluster.

Each group of cases is one task with the GPUs or cores of its largest run, all on one node, where an
ordinary pool computes it. Events and files come back as a stream of messages: no file system is shared.
A group whose node is lost goes to another node with what it still lacks.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import codec
from harness.errors import InfrastructureError
from harness.execution.events import Event, Finished, FolderOf, Started, Stepped, Waiting
from harness.execution.ray import cluster, remote
from harness.execution.ray.cluster import Group
from harness.planning.graph import case_groups
from harness.types import Failure, FailureKind, Run, RunSpec

PLACED_AT_MOST = 3
"""Times a group is placed: one that brings down three nodes is to blame itself."""
PATIENCE_S = 60.0
"""How long a group waits for a node that could hold it: clusters grow, and replace what they lose."""
ANSWER_S = 300.0
"""How long a task may take to say that it has begun: a node imports from a slow disk what it needs."""
LOOK_S = 1.0
"""How often to look whether there is such a node, and whether tasks with a place are heard of."""
FAREWELL_S = 5.0
"""Time that tasks get to end their ranks by themselves."""
UNREAD_MESSAGES = 16
"""Messages a task may be ahead of us: with the size of a piece, this bounds the memory of a node."""


@dataclass
class _Attempt:
    """A group on its way through the cluster."""

    group: Group
    place: Any
    """The placement group."""
    replies: Any
    """The task's generator of messages."""
    node: str = ""
    """Empty until the task has told where it is."""
    silent_since: float | None = None
    """When its place was seen to be there, and nothing had been heard from it."""
    unfit_since: float | None = None
    """When no node could hold it for the first time since one could."""
    building: dict[str, Path] = field(default_factory=dict)
    """Folders that wait for the rest of their files."""

    def unfit_s(self, fits: bool, now_s: float) -> float | None:
        """Seconds for which no node has been able to hold it; ``None`` while one is."""
        if fits:
            self.unfit_since = None
            return None
        self.unfit_since = now_s if self.unfit_since is None else self.unfit_since
        return now_s - self.unfit_since


class RayExecutor:
    """Computes runs on a Ray cluster.

    Parameters
    ----------
    logs
        Folder of the ranks' logs, one folder for each task.
    address
        The cluster. Without one it is found as ray finds it: by ``RAY_ADDRESS``, else the one that runs here;
        where there is none, one of this machine alone is started, and ended by :meth:`close`.
    patience_s, answer_s
        How long a group waits for a node that could hold it, and for a word of its task when it has one.
    """

    def __init__(
        self, logs: Path, address: str | None = None, patience_s: float = PATIENCE_S, answer_s: float = ANSWER_S
    ) -> None:
        self._logs = logs
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._attempts: dict[Any, _Attempt] = {}
        self._connected = cluster.connect(address)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, specs: Sequence[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
        """Compute runs and yield events as they happen; leaving the loop early ends the work.

        Raises
        ------
        InfrastructureError
            If a node has other code, libraries or weights, or a task fails by itself or is never heard of.
        """
        import ray

        try:
            for number, group in enumerate(case_groups(specs)):
                self._place(Group(number, group))
            looked = time.monotonic()
            while self._attempts:
                ready, _ = ray.wait(list(self._attempts), num_returns=1, timeout=LOOK_S, fetch_local=False)
                for replies in ready:
                    yield from self._hear(self._attempts[replies], folder_of)
                if not ready or time.monotonic() - looked >= LOOK_S:  # groups elsewhere may talk all the time
                    looked = time.monotonic()
                    self._expect_answers()
                    yield from self._give_up_what_fits_nowhere(folder_of)
        except BaseException:
            self._cancel()
            raise

    def close(self) -> None:
        """End all work, and the cluster or the connection if it was made here."""
        import ray

        self._cancel()
        if self._connected:
            self._connected = False
            ray.shutdown()

    # ------------------------------------------------------------ placing

    def _place(self, group: Group) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        needs = group.needs
        place = placement_group([needs], strategy="STRICT_PACK")
        task = ray.remote(remote.work).options(
            name=f"sp-harness {group.specs[0].case.name}",
            num_cpus=needs.get("CPU", 0),
            num_gpus=needs.get("GPU", 0),
            num_returns="streaming",
            max_retries=0,  # a second time costs minutes: only what is lacking is computed again, and by us
            _generator_backpressure_num_objects=UNREAD_MESSAGES,
            scheduling_strategy=PlacementGroupSchedulingStrategy(place),
        )
        group.times_placed += 1
        replies = task.remote([codec.encode(spec) for spec in group.to_compute], int(needs.get("CPU", 0)))
        self._attempts[replies] = _Attempt(group, place, replies)

    def _give_up_what_fits_nowhere(self, folder_of: FolderOf) -> Iterator[Event]:
        """Record a failure for groups that no node of the cluster can hold, once patience is over."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        for attempt in [attempt for attempt in self._attempts.values() if not attempt.node]:
            needs = attempt.group.needs
            fits = any(all(node.get(kind, 0) >= number for kind, number in needs.items()) for node in nodes)
            unfit_s = attempt.unfit_s(fits, time.monotonic())
            if unfit_s is not None and unfit_s >= self._patience_s:
                self._end(attempt)
                yield from self._fail(attempt.group, FailureKind.LAUNCH, cluster.fits_nowhere(needs, nodes), folder_of)

    def _expect_answers(self) -> None:
        """See that tasks which have a place are heard of."""
        from ray.util import placement_group_table

        for attempt in [attempt for attempt in self._attempts.values() if not attempt.node]:
            if placement_group_table(attempt.place).get("state") != "CREATED":
                attempt.silent_since = None
                continue
            attempt.silent_since = attempt.silent_since or time.monotonic()
            if time.monotonic() - attempt.silent_since >= self._answer_s:
                raise InfrastructureError(
                    "a task was placed in the Ray cluster and has not been heard of since; see that its nodes can "
                    "reach this machine, and that RAY_AUTH_MODE and the token are the same on all of them"
                )

    # ------------------------------------------------------------ hearing from nodes

    def _hear(self, attempt: _Attempt, folder_of: FolderOf) -> Iterator[Event]:
        import ray
        from ray import exceptions

        lost = (
            exceptions.NodeDiedError,
            exceptions.WorkerCrashedError,
            exceptions.LocalRayletDiedError,
            exceptions.OutOfMemoryError,  # ray ended the task to save its node
            exceptions.ObjectLostError,
            exceptions.TaskPlacementGroupRemoved,
        )
        try:
            message = ray.get(next(attempt.replies))
        except StopIteration:
            self._end(attempt)
            if attempt.group.lacking:  # ranks were killed there
                yield from self._again(attempt, "its ranks were killed", folder_of)
        except lost as error:
            self._end(attempt)
            yield from self._again(attempt, f"its node was lost ({type(error).__name__})", folder_of)
        except exceptions.RayError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "").strip()
            raise InfrastructureError(f"node {attempt.node or '?'}: cannot compute: {reason}") from error
        else:
            yield from self._take(message, attempt, folder_of)

    def _take(self, message: remote.Message, attempt: _Attempt, folder_of: FolderOf) -> Iterator[Event]:
        if isinstance(message, remote.Placed):
            attempt.node = message.node
            if not attempt.group.done:
                attempt.group.kind = cluster.kind_of(message.node_id)
        elif isinstance(message, remote.Unfit):
            raise InfrastructureError(f"node {attempt.node}: {message.reason}")
        elif isinstance(message, remote.Queued):
            yield Waiting(f"node {attempt.node}: {message.message}")
        elif isinstance(message, remote.Piece) and not message.digest:
            number = f"{attempt.group.number}-{attempt.group.times_placed}"
            _append(self._logs / f"{number}-{attempt.node}" / message.name, message.data)
        elif message.digest not in attempt.group.done:
            spec = next(spec for spec in attempt.group.specs if spec.digest == message.digest)
            yield from self._follow(message, spec, attempt, folder_of)

    def _follow(
        self,
        message: remote.Begun | remote.Reached | remote.Piece | remote.Over,
        spec: RunSpec,
        attempt: _Attempt,
        folder_of: FolderOf,
    ) -> Iterator[Event]:
        folder = folder_of(spec)
        building = folder.with_name(f".{folder.name}.building")
        if isinstance(message, remote.Begun):
            shutil.rmtree(building, ignore_errors=True)
            attempt.building[spec.digest] = building
            yield Started(spec)
        elif isinstance(message, remote.Reached):
            yield Stepped(spec, message.step)
        elif isinstance(message, remote.Piece):
            _append(building / message.name, message.data)
        else:
            run = replace(codec.decode(Run, message.run), spec=spec)  # with the paths of this machine
            killed = run.failure is not None and run.failure.kind == FailureKind.KILLED
            if not killed or attempt.group.times_placed >= PLACED_AT_MOST:
                yield _finish(run, building, folder)
                attempt.group.done.add(spec.digest)

    # ------------------------------------------------------------ what is lost

    def _again(self, attempt: _Attempt, reason: str, folder_of: FolderOf) -> Iterator[Event]:
        group = attempt.group
        if group.times_placed < PLACED_AT_MOST:
            yield Waiting(f"{group.specs[0].case.name} on node {attempt.node or '?'}: {reason}; it gets another place")
            self._place(group)
        else:
            reason = f"placed {group.times_placed} times, at last on {attempt.node or 'no node'}: {reason}"
            yield from self._fail(group, FailureKind.KILLED, reason, folder_of)

    def _fail(self, group: Group, kind: FailureKind, reason: str, folder_of: FolderOf) -> Iterator[Event]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for spec in group.lacking:
            folder = folder_of(spec)
            run = Run(spec, "error", failure=Failure(kind, reason), started_at=now)
            yield _finish(run, folder.with_name(f".{folder.name}.building"), folder)
            group.done.add(spec.digest)

    def _end(self, attempt: _Attempt) -> None:
        """Give back an attempt's place, and end what is left of its task there."""
        import ray
        from ray.util.placement_group import remove_placement_group

        self._attempts.pop(attempt.replies, None)
        for folder in attempt.building.values():
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(ray.exceptions.RayError):
            remove_placement_group(attempt.place)

    def _cancel(self) -> None:
        """End all attempts: first by asking, so that they clean up, then by taking their places away."""
        import ray

        attempts = list(self._attempts.values())
        if not attempts or not ray.is_initialized():
            return
        deadline = time.monotonic() + FAREWELL_S
        with contextlib.suppress(ray.exceptions.RayError):
            for attempt in attempts:
                ray.cancel(attempt.replies)
            for attempt in attempts:
                left = deadline - time.monotonic()
                ray.wait([attempt.replies.completed()], timeout=max(left, 0))
        for attempt in attempts:
            self._end(attempt)


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)


def _finish(run: Run, building: Path, folder: Path) -> Finished:
    """Make a run's folder appear, whole."""
    codec.write_json(building / "run.json", run)
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
    return Finished(run)
