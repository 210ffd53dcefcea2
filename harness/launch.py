"""Worker groups: processes, time limits, logs, and what becomes of a rank that dies or hangs.

A group is all ranks of one world size and model, and serves every engine that needs them. It stays
while it has work; when one of its runs fails it is killed as a whole (the other ranks may wait in a
collective for ever) and started anew for the next run. Every rank leads a process session of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import codec
from harness.types import Device, DType, Failure, FailureKind, Run, RunSpec, Times

STACK_SIGNAL = signal.SIGUSR1  # as in harness.worker, which is started and never imported here
START_TIMEOUT_S = 600.0
"""Loading a full-size checkpoint from a slow disk takes minutes."""
STACK_GRACE_S = 5.0
"""Time a rank gets to print its stacks."""
PEER_GRACE_S = 1.0
"""A dying process closes its connections a moment before its end can be seen."""

OnStep = Callable[[int], None]


@dataclass(frozen=True)
class GroupKey:
    """What makes two runs servable by the same processes."""

    world_size: int
    device: Device
    dtype: DType
    model_path: str
    sequence: str = ""

    @classmethod
    def of(cls, spec: RunSpec) -> GroupKey:
        """The group a run needs."""
        return cls(spec.world_size, spec.case.device, spec.case.dtype, spec.model_path, spec.sequence)


class GroupFailed(Exception):
    """The group cannot go on; carries what to record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Aborted(Exception):
    """The harness itself ended the group; nothing is to be recorded."""


@dataclass
class _Rank:
    """One process, its log, and the pipe its replies come through."""

    process: subprocess.Popen[bytes]
    log: Path
    replies: int
    buffer: bytes = b""
    log_offset: int = 0

    def write(self, order: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead rank is noticed where its reply is awaited
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()

    def log_since(self, offset: int) -> str:
        with self.log.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", "replace")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        os.close(self.replies)
        if self.process.stdin:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


class WorkerGroup:
    """The ranks of one group, driven from one thread of the parent."""

    def __init__(self, key: GroupKey, logs: Path, first_device: int = 0) -> None:
        self.key = key
        self._logs = logs
        self._first_device = first_device
        self._ranks: list[_Rank] = []
        self._versions: dict[str, Mapping[str, str]] = {}
        self._rendezvous = ""
        self._aborted = False
        self._broken: Failure | None = None
        """Why a sequence cannot go on: another engine would not have served what came before."""
        self._busy = threading.RLock()
        """Held by whoever drives the group, who then also cleans up after it."""

    def ensure(self, engine: str) -> None:
        """Start the ranks if they are not up, and make an engine ready on all of them.

        Raises
        ------
        GroupFailed
            If a rank dies, raises or takes too long while it gets ready.
        """
        try:
            if not self._ranks:
                self._start()
            if engine not in self._versions:
                self._send({"engine": engine})
                self._versions[engine] = self._collect("ready", START_TIMEOUT_S)[0]["versions"]
        except GroupFailed as error:
            failure = error.failure
            kind = failure.kind if failure.kind == FailureKind.OUT_OF_MEMORY else FailureKind.LAUNCH
            message = f"{engine} did not start: {failure.message}"
            raise GroupFailed(Failure(kind, message, failure.rank, failure.detail)) from None

    def run(self, spec: RunSpec, folder: Path, on_step: OnStep = lambda step: None) -> Run:
        """Serve one run; what an engine does wrong is recorded, never raised.

        Parameters
        ----------
        spec
            The run; its case's ``timeout_s`` limits it.
        folder
            Where the run's folder appears, whole, when it is over; ``run.json`` in it is written last.
        on_step
            Called with the number of denoise steps done.

        Raises
        ------
        Aborted
            If :meth:`abort` was called meanwhile; no folder is left.
        """
        with self._busy:
            return self._run(spec, folder, on_step)

    def _run(self, spec: RunSpec, folder: Path, on_step: OnStep) -> Run:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        building = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
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
                shutil.rmtree(building, ignore_errors=True)
                raise Aborted from None
            failure = error.failure
            outcome = "timeout" if failure.kind == FailureKind.HUNG else "error"
            result = {"outcome": outcome, "failure": failure}
            if self.key.sequence and not self._broken:
                message = f"not served: the sequence broke at {spec.case.name} ({failure.message})"
                self._broken = Failure(failure.kind, message, failure.rank)
        wall_s = round(time.monotonic() - started, 4)
        versions = self._versions.get(spec.engine, {})
        run = Run(spec=spec, wall_s=wall_s, started_at=started_at, versions=versions, **result)
        codec.write_json(building / "run.json", run)
        shutil.rmtree(folder, ignore_errors=True)
        building.replace(folder)
        return run

    def kill(self) -> None:
        """End every rank now, with all that its engine started."""
        with self._busy:
            for rank in self._ranks:
                rank.kill()
                rank.close()
            self._ranks, self._versions = [], {}
            shutil.rmtree(self._rendezvous, ignore_errors=True)

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
        self._logs.mkdir(parents=True, exist_ok=True)
        self._rendezvous = tempfile.mkdtemp(prefix="sp-harness-")
        for index in range(self.key.world_size):
            rank = _spawn(self._logs / f"rank-{index}.log")
            self._ranks.append(rank)
            if self._aborted:  # asked after the rank is known: either we see it here, or abort() sees the rank
                raise GroupFailed(Failure(FailureKind.KILLED, "the harness was interrupted"))
            rank.write(
                {
                    "rank": index,
                    "world_size": self.key.world_size,
                    "device": self.key.device,
                    "device_index": self._first_device + index,
                    "dtype": self.key.dtype,
                    "model_path": self.key.model_path,
                    "rendezvous": str(Path(self._rendezvous, "store")),
                }
            )

    def _draw(self, spec: RunSpec, folder: Path, on_step: OnStep) -> dict[str, Any]:
        for rank in self._ranks:
            rank.log_offset = rank.log.stat().st_size
        self._send({"engine": spec.engine, "spec": codec.encode(spec), "folder": str(folder.absolute())})
        done = self._collect("done", spec.case.timeout_s, on_step)
        first = done[0]
        return {
            "outcome": "ok",
            "images": tuple(first["images"]),
            "latents": first["latents"],
            "times": codec.decode(Times, first["times"]),
            "caption_tokens": tuple(first["caption_tokens"]),
            "peak_memory_bytes": tuple(reply["peak_memory_bytes"] for reply in done),
            "counters": _sums([reply["counters"] for reply in done]),
            "cache_decisions": tuple(tuple(reply["cache_decisions"]) for reply in done if reply["cache_decisions"]),
        }

    def _send(self, order: Mapping[str, Any]) -> None:
        for rank in self._ranks:
            rank.write(order)

    def _collect(self, event: str, timeout_s: float, on_step: OnStep = lambda step: None) -> list[dict[str, Any]]:
        """Wait until every rank has replied with ``event``; the first failure ends the wait."""
        found: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for index, rank in enumerate(self._ranks):
                selector.register(rank.replies, selectors.EVENT_READ, index)
            while len(found) < len(self._ranks):
                left = deadline - time.monotonic()
                if left <= 0:
                    missing = [index for index in range(len(self._ranks)) if index not in found]
                    raise GroupFailed(self._hung(missing, timeout_s))
                for key, _ in selector.select(left):
                    for reply in self._read(key.data):
                        if reply["event"] == "step":
                            on_step(reply["step"])
                        elif reply["event"] == event:
                            found[key.data] = reply
                        else:
                            raise GroupFailed(self._raised(key.data, reply))
        return [found[index] for index in range(len(self._ranks))]

    def _read(self, index: int) -> list[dict[str, Any]]:
        """Replies that have arrived from one rank; its end is a failure."""
        rank = self._ranks[index]
        data = os.read(rank.replies, 1 << 20)
        if not data:
            raise GroupFailed(self._died(index))
        *lines, rank.buffer = (rank.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    # ------------------------------------------------------------ naming what went wrong

    def _raised(self, index: int, reply: dict[str, Any]) -> Failure:
        dead = self._dead_peer(index)
        if dead is not None:
            return self._died(dead)
        kind = FailureKind.OUT_OF_MEMORY if reply["out_of_memory"] else FailureKind.RAISED
        return Failure(kind, f"rank {index} raised {reply['message']}", index, reply["detail"])

    def _dead_peer(self, index: int) -> int | None:
        """The rank whose death made another raise: a collective fails when a peer's connection closes."""
        deadline = time.monotonic() + PEER_GRACE_S
        others = [other for other in range(len(self._ranks)) if other != index]
        while others and time.monotonic() < deadline:
            for other in others:
                if self._ranks[other].process.poll() is not None:
                    return other
            time.sleep(0.02)
        return None

    def _died(self, index: int) -> Failure:
        rank = self._ranks[index]
        code = rank.process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        # Nobody but a user, the kernel's out-of-memory killer or a batch system sends these two.
        killed = code in (-signal.SIGKILL, -signal.SIGTERM)
        kind = FailureKind.KILLED if killed else FailureKind.RAISED
        verb = "was killed from outside" if killed else "crashed"
        return Failure(kind, f"rank {index} {verb} ({name})", index, rank.log_since(rank.log_offset)[-8000:])

    def _hung(self, missing: list[int], timeout_s: float) -> Failure:
        ranks = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        message = f"no answer within {timeout_s:g} s from {ranks}"
        return Failure(FailureKind.HUNG, message, missing[0], self._stacks(missing))

    def _stacks(self, missing: list[int]) -> str:
        """Stacks of the ranks that do not answer, printed by themselves into their logs."""
        offsets = {index: self._ranks[index].log.stat().st_size for index in missing}
        for index in missing:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._ranks[index].process.pid, STACK_SIGNAL)
        deadline = time.monotonic() + STACK_GRACE_S
        texts = dict.fromkeys(missing, "")
        while time.monotonic() < deadline and not all("most recent call first" in t for t in texts.values()):
            time.sleep(0.05)
            texts = {index: self._ranks[index].log_since(offset) for index, offset in offsets.items()}
        return "\n".join(f"--- rank {index}\n{text.strip()}" for index, text in texts.items())


def _sums(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for each in counters for name in each})
    return {name: sum(each.get(name, 0) for each in counters) for name in names}


def _spawn(log: Path) -> _Rank:
    read_end, write_end = os.pipe()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
            env=_environment(),
        )
    os.close(write_end)
    os.set_blocking(read_end, False)
    return _Rank(process, log, read_end)


def _environment() -> dict[str, str]:
    """Environment of a rank: one thread for each, no hub, gloo on the loopback interface."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    fixed = dict.fromkeys(threads, "1") | {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    chosen = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**chosen, **os.environ, **fixed}
