"""Runs onto worker groups: which group serves which run, and how many work side by side.

Runs on one device go to as many single workers as there are cores (or GPUs), one run each; runs on
several ranks have the machine to themselves. Each group is driven by a thread of its own, and what
happens reaches the caller as events, in one queue.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.launch import Aborted, GroupKey, WorkerGroup
from harness.types import Device, Run, RunSpec


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


Event = Started | Stepped | Finished
FolderOf = Callable[[RunSpec], Path]


def num_slots(device: Device) -> int:
    """Single-device runs that fit side by side: usable cores, or GPUs."""
    if device == "cpu":
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    import torch

    return max(1, torch.cuda.device_count())


class Pool:
    """Worker groups that stay between calls; close it, or use it as a context.

    Parameters
    ----------
    logs
        Folder of the ranks' logs, one folder for each group.
    keep
        Keep every group until :meth:`close`; otherwise a group ends when the runs at hand no longer need it.
    """

    def __init__(self, logs: Path, keep: bool = False) -> None:
        self._logs = logs
        self._keep = keep
        self._groups: dict[tuple[GroupKey, int], WorkerGroup] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def execute(self, specs: Sequence[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
        """Compute runs and yield events as they happen; leaving the loop early ends the work.

        Runs of one world size and model stay in the order given; single-device runs come first.
        """
        try:
            for key, batch in sorted(_batches(specs).items(), key=lambda item: item[0].world_size):
                yield from self._execute_batch(key, batch, folder_of)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all groups."""
        with self._lock:
            self._closed = True
            groups = list(self._groups.values())
        for group in groups:
            group.abort()

    def _execute_batch(self, key: GroupKey, batch: list[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
        alone = key.world_size == 1 and not key.sequence
        workers = min(num_slots(key.device), len(batch)) if alone else 1
        waiting: queue.SimpleQueue[RunSpec] = queue.SimpleQueue()
        for spec in batch:
            waiting.put(spec)
        events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._drive, args=(self._group(key, slot), waiting, events, folder_of))
            for slot in self._slots(key, workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _until_done(events, workers)
        finally:
            if any(thread.is_alive() for thread in threads):
                self.close()
            for thread in threads:
                thread.join()

    def _slots(self, key: GroupKey, workers: int) -> range:
        """Places of the groups to use; a sequence gets one that has served nothing before."""
        start = len(self._groups) if key.sequence else 0
        return range(start, start + workers)

    def _group(self, key: GroupKey, slot: int) -> WorkerGroup:
        with self._lock:
            if (key, slot) not in self._groups:
                logs = self._logs / f"{len(self._groups)}-world-{key.world_size}"
                self._groups[key, slot] = WorkerGroup(key, logs, first_device=slot if key.world_size == 1 else 0)
            return self._groups[key, slot]

    def _drive(
        self,
        group: WorkerGroup,
        waiting: queue.SimpleQueue[RunSpec],
        events: queue.SimpleQueue[Event | BaseException | None],
        folder_of: FolderOf,
    ) -> None:
        try:
            while not self._closed:
                try:
                    spec = waiting.get_nowait()
                except queue.Empty:
                    break
                events.put(Started(spec))
                on_step = partial(_put_step, events, spec)
                events.put(Finished(group.run(spec, folder_of(spec), on_step)))
        except Aborted:
            pass  # the caller has left; nothing is to be told
        except BaseException as error:  # handed to the caller's thread
            events.put(error)
        finally:
            if self._closed or not self._keep or group.key.sequence:
                group.kill()
            events.put(None)


def _put_step(events: queue.SimpleQueue[Event | BaseException | None], spec: RunSpec, step: int) -> None:
    events.put(Stepped(spec, step))


def _until_done(events: queue.SimpleQueue[Event | BaseException | None], workers: int) -> Iterator[Event]:
    while workers:
        event = events.get()
        if event is None:
            workers -= 1
        elif isinstance(event, BaseException):
            raise event
        else:
            yield event


def _batches(specs: Sequence[RunSpec]) -> dict[GroupKey, list[RunSpec]]:
    batches: dict[GroupKey, list[RunSpec]] = {}
    for spec in specs:
        batches.setdefault(GroupKey.of(spec), []).append(spec)
    return batches
