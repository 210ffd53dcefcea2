"""Runs onto worker groups: which group serves which run, and how many work side by side.

Runs on one device go to as many single workers as there are cores (or free GPUs), one run each; runs on
several ranks follow one after the other. Each group is driven by a thread of its own, and what happens
reaches the caller as events, in one queue. GPUs are held while a batch needs them, against other runs.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from harness import plugins
from harness.errors import InfrastructureError
from harness.execution import gpus
from harness.execution.events import Event, Finished, FolderOf, Holding, Started, Stepped, Waiting
from harness.execution.group import Aborted, StartRanks, WorkerGroup
from harness.execution.group_key import GroupKey
from harness.execution.rank import fork_ranks
from harness.types import Device, RunSpec


def num_slots(device: Device) -> int:
    """Single-device runs that fit side by side: usable cores; of GPUs, those that are free decide."""
    if device != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Pool:
    """Worker groups that stay between calls; close it, or use it as a context.

    Parameters
    ----------
    logs
        Folder of the ranks' logs, one folder for each group.
    keep
        Keep every group until :meth:`close`; otherwise a group ends when the runs at hand no longer need it.
    start
        Starts the ranks of a group, all on this machine by default.
    """

    def __init__(self, logs: Path, keep: bool = False, start: StartRanks = fork_ranks) -> None:
        self._logs = logs
        self._purpose = str(_run_folder(logs))
        self._keep = keep
        self._start = start
        self._groups: dict[tuple[GroupKey, int], WorkerGroup] = {}
        self._leases: dict[Device, gpus.Lease] = {}
        self._modules: Mapping[str, tuple[str, ...]] = {}
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
        self._modules = _modules(specs)
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
        for lease in self._leases.values():
            lease.release()

    def _execute_batch(self, key: GroupKey, batch: list[RunSpec], folder_of: FolderOf) -> Iterator[Event]:
        alone = key.world_size == 1 and not key.sequence
        lease = self._lease(key.device)
        most = min(lease.num_gpus or num_slots(key.device), len(batch)) if alone else key.world_size
        yield from self._take(lease, 1 if alone else key.world_size, most)
        workers = (len(lease.held[:most]) or most) if alone else 1
        work = _Work(batch, folder_of)
        threads = [
            threading.Thread(target=self._drive, args=(self._group(key, slot, lease), work))
            for slot in self._slots(key, workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from work.events_until_done(workers)
        finally:
            if any(thread.is_alive() for thread in threads):
                self.close()
            for thread in threads:
                thread.join()
        if not self._keep:
            yield from self._let_go(lease)

    def _lease(self, device: Device) -> gpus.Lease:
        if device not in self._leases:
            found = gpus.visible(device)
            if device == "cuda" and not found:
                raise InfrastructureError(
                    'device = "cuda": no GPU is visible here; write device = "cpu", or see nvidia-smi, '
                    "CUDA_VISIBLE_DEVICES, and whether torch is a CUDA build"
                )
            self._leases[device] = gpus.Lease(found, self._purpose)
        return self._leases[device]

    def _take(self, lease: gpus.Lease, least: int, most: int) -> Iterator[Event]:
        """Hold the GPUs of a batch, and say so."""
        before = lease.held
        if before and lease.lacks(least):  # who waits while it holds makes others wait
            for group in self._groups.values():
                group.kill()
            lease.release()
        for message in lease.take(least, most):
            yield Waiting(message)
        if lease.held != before:
            yield Holding(lease.held)

    def _let_go(self, lease: gpus.Lease) -> Iterator[Event]:
        """Give back the GPUs of a batch, and say so."""
        if lease.held:
            lease.release()
            yield Holding(())

    def _slots(self, key: GroupKey, workers: int) -> range:
        """Places of the groups to use; a sequence gets one that has served nothing before."""
        start = len(self._groups) if key.sequence else 0
        return range(start, start + workers)

    def _group(self, key: GroupKey, slot: int, lease: gpus.Lease) -> WorkerGroup:
        with self._lock:
            if (key, slot) not in self._groups:
                logs = self._logs / f"{len(self._groups)}-world-{key.world_size}"
                self._groups[key, slot] = WorkerGroup(key, logs, (), self._modules[key.python], self._start)
            group = self._groups[key, slot]
            first = slot if key.world_size == 1 and not key.sequence else 0
            group.devices = lease.indices(first + key.world_size)[first:]
            return group

    def _drive(self, group: WorkerGroup, work: _Work) -> None:
        try:
            while not self._closed and (spec := work.next()):
                work.events.put(Started(spec))
                work.events.put(Finished(group.run(spec, work.folder_of(spec), partial(work.stepped, spec))))
        except Aborted:
            pass  # the caller has left
        except BaseException as error:  # handed to the caller's thread
            work.events.put(error)
        finally:
            if self._closed or not self._keep or group.key.sequence:
                group.kill()
            work.events.put(None)


class _Work:
    """Runs that wait for a group, and what happens to them."""

    def __init__(self, specs: Iterable[RunSpec], folder_of: FolderOf) -> None:
        self._waiting: queue.SimpleQueue[RunSpec] = queue.SimpleQueue()
        for spec in specs:
            self._waiting.put(spec)
        self.folder_of = folder_of
        self.events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        """An error of the harness is for the caller; ``None`` says that a group has no more to do."""

    def next(self) -> RunSpec | None:
        """Take the next run; ``None`` when none is left."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def stepped(self, spec: RunSpec, step: int) -> None:
        """Tell of a denoise step."""
        self.events.put(Stepped(spec, step))

    def events_until_done(self, num_groups: int) -> Iterator[Event]:
        """Yield events until no group has more to do."""
        while num_groups:
            event = self.events.get()
            if event is None:
                num_groups -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event


def _run_folder(logs: Path) -> Path:
    """The run folder that logs lie in."""
    return next((place.parent for place in (logs, *logs.parents) if place.name == "logs"), logs)


def _modules(specs: Sequence[RunSpec]) -> dict[str, tuple[str, ...]]:
    """Modules that the engines of these runs need imported before their ranks are forked, by interpreter."""
    found: dict[str, dict[str, None]] = {}
    for spec in specs:
        modules = plugins.ask(plugins.load("engines", spec.engine), "preload", spec)
        found.setdefault(spec.interpreter, {}).update(dict.fromkeys(modules))
    return {python: tuple(modules) for python, modules in found.items()}


def _batches(specs: Sequence[RunSpec]) -> dict[GroupKey, list[RunSpec]]:
    batches: dict[GroupKey, list[RunSpec]] = {}
    for spec in specs:
        batches.setdefault(GroupKey.of(spec), []).append(spec)
    return batches
