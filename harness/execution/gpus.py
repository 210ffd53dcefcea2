"""GPUs that several runs on one machine share: each is held by one run at a time, and by a lock of its own.

A run asks for as many as it can use and needs at least; it takes whichever are free, never waits while it
holds others, and says whom it waits for. Locks lie in one folder for all users of the machine and are
named by a GPU's UUID, so that runs agree on a GPU whatever number ``CUDA_VISIBLE_DEVICES`` gives it. They
bind only who asks: programs other than this harness do not. Processors are shared without locks.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.environments import child_process
from harness.errors import InfrastructureError
from harness.execution import locks
from harness.types import Device

LOCKS = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()) / "sp-harness-devices"
"""Not ``$TMPDIR``: batch systems give every job one of its own."""
WAIT_S = 3600.0
"""Longer than a nightly run takes."""
POLL_S = 0.25
_NO_DEVICE = 100
"""Answer of the driver where it sees no GPU."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as this process would number it, and its name for all processes."""

    index: int
    uuid: str


def visible(device: Device) -> tuple[Gpu, ...]:
    """GPUs that runs started here may use, in CUDA's order; none where runs need none.

    CUDA's driver is asked, since NVML knows neither ``CUDA_VISIBLE_DEVICES`` nor CUDA's order, and in a process of
    its own: one that has talked to it cannot be forked any more.

    Raises
    ------
    InfrastructureError
        If there is a driver and it does not answer.
    """
    if device != "cuda":
        return ()
    asked = subprocess.run(
        child_process.command("harness.execution.gpus"),
        env=child_process.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise InfrastructureError(f"the CUDA driver does not answer: {reason}; see whether nvidia-smi does")
    return tuple(Gpu(index, name) for index, name in enumerate(json.loads(asked.stdout)))


class Lease:
    """GPUs this process holds for a while.

    Parameters
    ----------
    gpus
        From :func:`visible`; with none, nothing is ever locked and nobody waits.
    purpose
        Purpose, shown to other processes that want them.
    folder, wait_s
        Where the locks lie (by default :data:`LOCKS`), and how long to wait for a GPU.
    """

    def __init__(self, gpus: Sequence[Gpu], purpose: str, folder: Path | None = None, wait_s: float = WAIT_S) -> None:
        self._gpus = gpus
        self._purpose = purpose
        self._folder = folder or LOCKS
        self._wait_s = wait_s
        self._held: dict[int, locks.Held] = {}

    @property
    def held(self) -> tuple[int, ...]:
        """Indices of the GPUs held, in the order in which they were taken."""
        return tuple(self._held)

    @property
    def num_gpus(self) -> int:
        """All there are to be shared."""
        return len(self._gpus)

    def lacks(self, least: int) -> bool:
        """Whether more are needed than are held, of those there are."""
        return len(self._held) < min(least, len(self._gpus))

    def indices(self, num_ranks: int) -> tuple[int, ...]:
        """GPU of each of so many ranks; where there are too few, the ranks that have none say so."""
        return (*self.held, *range(len(self._held), num_ranks))[:num_ranks]

    def take(self, least: int, most: int, wanted: Callable[[], bool] = lambda: True) -> Iterator[str]:
        """Hold at least ``least`` and up to ``most`` GPUs; yields, while it waits, for whom.

        Who holds enough takes no more. Who comes later stands in line behind those who wait already, also one
        that has just given GPUs back. Of GPUs that do not exist none is waited for: a run on more ranks than
        the machine has GPUs fails where it starts, and says so. ``wanted`` is asked while it waits; ``False``
        gives up.

        Raises
        ------
        InfrastructureError
            If the wait takes too long, or a lock cannot be made.
        """
        if not self.lacks(least):
            return
        least = min(least, len(self._gpus))
        looks, told = 0, ""
        line: list[locks.Held] = []
        try:
            while wanted() and (busy := self._queue(line) or self._try(least, most)):
                message = f"waiting for {least - len(self._held)} of these GPUs: {'; '.join(busy)}"
                if looks * POLL_S >= self._wait_s:  # no clock: it goes on while this process is stopped
                    remedy = "end that run, or name other GPUs in CUDA_VISIBLE_DEVICES"
                    raise InfrastructureError(f"after {self._wait_s:g} s still {message}; {remedy}")
                if message != told:
                    yield message
                    told = message
                time.sleep(POLL_S)
                looks += 1
        finally:
            for place in line:
                place.release()

    def release(self) -> None:
        """Let others have what is held."""
        while self._held:
            self._held.popitem()[1].release()

    def _queue(self, line: list[locks.Held]) -> list[str]:
        """Take a place in line at each GPU, always in the same order; who has the first that is taken."""
        for gpu in sorted(self._gpus, key=lambda gpu: gpu.uuid)[len(line) :]:
            place = self._attempt(gpu, "line")
            if place is None:
                return [f"in line for GPU {gpu.index} behind {locks.holder(self._path(gpu, 'line'))}"]
            line.append(place)
        return []

    def _try(self, least: int, most: int) -> list[str]:
        """Take what is free, all or nothing (who waits while it holds makes others wait); what stands in the way."""
        taken: dict[int, locks.Held] = {}
        busy = []
        for gpu in self._gpus:
            if gpu.index in self._held or len(self._held) + len(taken) >= most:
                continue
            lock = self._attempt(gpu, "lock")
            if lock:
                taken[gpu.index] = lock
            else:
                busy.append(f"GPU {gpu.index}: {locks.holder(self._path(gpu, 'lock'))}")
        if len(self._held) + len(taken) >= least:
            self._held |= taken
            return []
        for lock in taken.values():
            lock.release()
        return busy

    def _attempt(self, gpu: Gpu, what: str) -> locks.Held | None:
        path = self._path(gpu, what)
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._folder.chmod(0o1777)  # for all users, but nobody may put another file in the place of one's own
            return locks.attempt(path, self._purpose)
        except OSError as error:
            raise InfrastructureError(f"{path}: GPU {gpu.index} cannot be locked ({error.strerror or error})") from None

    def _path(self, gpu: Gpu, what: str) -> Path:
        return self._folder / f"{gpu.uuid}.{what}"


def _ask_driver() -> list[str]:
    """UUIDs of the GPUs the driver shows to this process, or of their parts where they are divided."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []  # no driver, no GPU
    answer = cuda.cuInit(0)
    if answer == _NO_DEVICE:
        return []
    if answer:
        sys.exit(f"cuInit answers {answer}")
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    names = []
    for index in range(count.value):
        handle, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        cuda.cuDeviceGet(ctypes.byref(handle), index)
        cuda.cuDeviceGetUuid_v2(ctypes.byref(name), handle)
        names.append(f"GPU-{uuid.UUID(bytes=bytes(name))}")
    return names


if __name__ == "__main__":
    print(json.dumps(_ask_driver()))
