"""Runs on the machines of a Ray cluster.

Each group of cases is one task with the GPUs or cores of its largest run, on one node if one can hold it, where
an ordinary pool computes it. Events and files come back as a stream: no file system is shared. A group whose
node is lost goes to another node with what it still lacks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import codec
from harness.errors import HarnessError, InfrastructureError
from harness.execution.events import Event, FolderOf, Holding, Waiting
from harness.execution.ray import cluster, placement
from harness.execution.ray.arrivals import Arrivals
from harness.execution.ray.placement import Group, Resources
from harness.execution.ray.task import Message, Placed, work
from harness.planning.graph import case_groups
from harness.types import Failure, FailureKind, Run, RunSpec

PLACED_AT_MOST = 3
"""Times a group is placed: one that was lost with three nodes may have caused it."""
PATIENCE_S = 60.0
"""Wait for nodes that can hold a group: clusters grow, and replace what they lose."""
ANSWER_S = 300.0
"""Time limit of the first message of a task that has its place: a node may import from a slow disk."""
LOOK_S = 1.0
"""Interval at which the cluster's nodes, and the silence of tasks, are looked at."""
FAREWELL_S = 5.0
"""Time that tasks get to end their ranks by themselves."""
UNREAD_MESSAGES = 16
"""Messages a task may be ahead of us: with the size of a piece, this bounds the memory of a node."""


class _Stopwatch:
    """Measures for how long something has held without a break."""

    _since: float | None = None

    def seconds(self, holds: bool, now_s: float) -> float:
        """Seconds since it began to hold; 0 where it does not."""
        self._since = (now_s if self._since is None else self._since) if holds else None
        return now_s - self._since if self._since is not None else 0.0


@dataclass
class _Attempt:
    """A group on its way through the cluster."""

    group: Group
    bundles: Sequence[Resources]
    """Resources asked of each node."""
    place: Any
    """The placement group."""
    replies: Any
    """The task's generator of messages."""
    arrivals: Arrivals
    node: str = ""
    """Empty until the task has begun."""
    silent: _Stopwatch = field(default_factory=_Stopwatch)
    """Runs while its place is there and nothing has been heard from it."""
    unfit: _Stopwatch = field(default_factory=_Stopwatch)
    """Runs while the cluster cannot hold it."""


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
        Wait for nodes that can hold a group, and time limit of the first message of a task that has its place.
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

    def __exit__(self, *exception: object) -> None:
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
                self._place(Group(number, group), folder_of)
            looked = time.monotonic()
            while self._attempts:
                ready, _ = ray.wait(list(self._attempts), num_returns=1, timeout=LOOK_S, fetch_local=False)
                for replies in ready:
                    yield from self._receive(self._attempts[replies])
                if not ready or time.monotonic() - looked >= LOOK_S:  # groups elsewhere may talk all the time
                    looked = time.monotonic()
                    self._expect_answers()
                    yield from self._give_up_what_fits_nowhere()
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

    def _place(self, group: Group, folder_of: FolderOf) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundles = placement.bundles_for(group.needs, placement.alive()) or [group.needs]
        place = placement_group([dict(bundle) for bundle in bundles], strategy="STRICT_SPREAD")
        task = ray.remote(work).options(
            name=f"sp-harness {group.specs[0].case.name}",
            num_cpus=bundles[0].get("CPU", 0),
            num_gpus=bundles[0].get("GPU", 0),
            num_returns="streaming",
            max_retries=0,  # a second time costs minutes: only what is lacking is computed again, and by us
            _generator_backpressure_num_objects=UNREAD_MESSAGES,
            scheduling_strategy=PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=0),
        )
        group.times_placed += 1
        replies = task.remote([codec.encode(spec) for spec in group.to_compute], bundles)
        arrivals = Arrivals(group, folder_of, keep_killed=group.times_placed >= PLACED_AT_MOST)
        self._attempts[replies] = _Attempt(group, bundles, place, replies, arrivals)

    def _give_up_what_fits_nowhere(self) -> Iterator[Event]:
        """Record a failure for groups that the cluster cannot hold, once patience is over."""
        nodes = placement.alive()
        for attempt in self._silent():
            group, fits = attempt.group, placement.can_hold(attempt.bundles, nodes)
            unfit_s = attempt.unfit.seconds(not fits, time.monotonic())
            if not fits and placement.bundles_for(group.needs, nodes):  # the cluster is another by now
                self._end(attempt)
                group.times_placed -= 1
                self._place(group, attempt.arrivals.folder_of)
            elif not fits and unfit_s >= self._patience_s:
                self._end(attempt)
                yield from self._fail(attempt, FailureKind.LAUNCH, placement.fits_nowhere(group.needs, nodes))

    def _expect_answers(self) -> None:
        """See that tasks which have a place are heard of."""
        from ray.util import placement_group_table

        for attempt in self._silent():
            is_placed = placement_group_table(attempt.place).get("state") == "CREATED"
            if attempt.silent.seconds(is_placed, time.monotonic()) >= self._answer_s:
                raise InfrastructureError(
                    "a task was placed in the Ray cluster and has not been heard of since; see that its nodes can "
                    "reach this machine, and that RAY_AUTH_MODE and the token are the same on all of them"
                )

    def _silent(self) -> list[_Attempt]:
        return [attempt for attempt in self._attempts.values() if not attempt.node]

    # ------------------------------------------------------------ receiving

    def _receive(self, attempt: _Attempt) -> Iterator[Event]:
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
            if attempt.group.lacking:
                yield from self._again(attempt, attempt.arrivals.killed)
        except lost as error:
            self._end(attempt)
            yield from self._again(attempt, f"its node was lost ({type(error).__name__})")
        except exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HarnessError):
                raise InfrastructureError(str(cause)) from None
            reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise InfrastructureError(f"node {attempt.node or '?'}: cannot compute: {reason}") from error
        else:
            yield from self._take(message, attempt)

    def _take(self, message: Message, attempt: _Attempt) -> Iterator[Event]:
        group = attempt.group
        if isinstance(message, Placed):
            attempt.node = message.node
            attempt.arrivals.logs = self._logs / f"{group.number}-{group.times_placed}-{message.node}"
            if not group.done:
                group.kind = placement.kind_by_id(message.node_id)
        elif isinstance(message, Waiting):
            yield message
        elif not isinstance(message, Holding):
            yield from attempt.arrivals.take(message)

    # ------------------------------------------------------------ what is lost

    def _again(self, attempt: _Attempt, reason: str) -> Iterator[Event]:
        group = attempt.group
        if group.times_placed < PLACED_AT_MOST:
            yield Waiting(f"{group.specs[0].case.name} on node {attempt.node or '?'}: {reason}; it gets another place")
            self._place(group, attempt.arrivals.folder_of)
        else:
            reason = f"placed {group.times_placed} times, at last on {attempt.node or 'no node'}: {reason}"
            yield from self._fail(attempt, FailureKind.KILLED, reason)

    def _fail(self, attempt: _Attempt, kind: FailureKind, reason: str) -> Iterator[Event]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for spec in attempt.group.lacking:
            yield attempt.arrivals.fail(Run(spec, "error", failure=Failure(kind, reason), started_at=now))

    def _end(self, attempt: _Attempt) -> None:
        """Give back an attempt's place, and end what is left of its task there."""
        import ray
        from ray.util.placement_group import remove_placement_group

        self._attempts.pop(attempt.replies, None)
        attempt.arrivals.drop()
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
