"""Program of a rank, which runs engines in their interpreter; one process is one rank.

Forked from :mod:`harness.worker.forkserver`. It serves orders from standard input and replies to a file descriptor
of their own (:mod:`harness.worker.protocol`). Standard output and error belong to the engine and end in the
rank's log. When standard input closes, the parent has ended or needs the rank no more, and the process ends at
once, even inside a collective.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import queue
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness import plugins
from harness.errors import InfrastructureError
from harness.plugins import Engine, Worker, build
from harness.types import Device, FailureKind, RunSpec
from harness.worker import drawings, exhaustion, protocol, traffic
from harness.worker.clock import peak_memory_bytes, reset_peak_memory
from harness.worker.collectives import PATIENCE, unfinished
from harness.worker.disk import Unwritable, writing
from harness.worker.probe.recorder import probing
from harness.worker.protocol import STACK_SIGNAL, Order, Raised, Ready, Reply, Start, Step

MAX_DETAIL_CHARS = 20_000
"""Of a traceback the end is kept, with what was raised; some libraries raise whole tensors."""


class Rank:
    """Serves orders: makes engines ready, draws, replies."""

    def __init__(self, start: Start, reply: Callable[[Reply], None]) -> None:
        self.start = start
        self.reply = reply
        self.worker = Worker(
            rank=start.rank,
            world_size=start.world_size,
            device=start.device,
            model_path=start.model_path,
            dtype=start.dtype,
            configuration=start.configuration,
            progress=self._progress,
        )
        self.engines: dict[str, Engine] = {}
        self.torch_started = False

    def serve(self, order: Order) -> None:
        """Carry out one order and report."""
        if order.spec is None:
            self._make_ready(order.engine)
        else:
            self._draw(self.engines[order.engine], order.spec, Path(order.folder))

    def _make_ready(self, name: str) -> None:
        engine: Engine = plugins.load("engines", name)()
        if "torch" in engine.packages and not self.torch_started:
            try:
                _start_torch(self.start)
            except Exception as error:
                raise InfrastructureError(f"{type(error).__name__}: {error}") from error
            self.torch_started = True
            if self.start.world_size > 1:
                traffic.listen(partial(self.worker.count, traffic.COUNTER))
        engine.load(self.worker)
        self.engines[name] = engine
        own = plugins.distribution_of("engines", name)
        packages = (*engine.packages, *((own,) if own and own not in engine.packages else ()))
        self.reply(Ready(_versions(packages, self.start.device)))

    def _draw(self, engine: Engine, spec: RunSpec, folder: Path) -> None:
        reset_peak_memory(self.start.device)
        self.worker.counters.clear()
        self.worker.cache_decisions = ()
        if self.torch_started and self.start.world_size > 1:
            self.worker.count(traffic.COUNTER, 0)
        with probing(spec, folder, self.start.rank):
            drawing = engine.draw(spec)
        done = drawings.reported(engine, self.worker, peak_memory_bytes(self.start.device))
        if self.start.rank == 0:  # on every rank the same, where an engine gathers
            drawing = drawings.checked(engine, drawing, spec.case)
            with writing(folder):
                done = drawings.save(drawing, folder, done)
        self.reply(done)

    def _progress(self, step: int) -> None:
        if self.start.rank == 0:
            self.reply(Step(step))


def main(descriptor: int) -> None:
    """Serve orders until standard input closes; replies go to ``descriptor``."""
    faulthandler.enable()
    _answer_stack_signal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a rank ends
    replies = os.fdopen(descriptor, "wb")

    def reply(message: Reply) -> None:
        replies.write(protocol.encode(message))
        replies.flush()

    orders = _listen()
    rank: Rank | None = None
    while True:
        line = orders.get()
        try:
            order = protocol.decode(line)
            if isinstance(order, Start):
                rank = Rank(order, reply)
            elif rank is not None and isinstance(order, Order):
                rank.serve(order)
            else:
                raise ValueError(f"not an order of a started rank: {order}")
        except Unwritable as error:
            reply(protocol.Unwritable(str(error.folder), error.number))
        except (Exception, SystemExit) as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            machine = exhaustion.raised_by(error)
            if machine is None and isinstance(error, InfrastructureError):
                machine = FailureKind.LAUNCH
            reply(Raised(message, traceback.format_exc()[-MAX_DETAIL_CHARS:], machine))


def _answer_stack_signal() -> None:
    """Print stacks from within the signal, as a rank that hangs runs no Python; a thread adds what it waits for."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(STACK_SIGNAL, lambda number, frame: None)  # chained, it wakes the thread
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    faulthandler.register(STACK_SIGNAL, all_threads=True, chain=True)

    def tell() -> None:
        while number := os.read(woken, 1):
            if number[0] == STACK_SIGNAL and (waits_for := unfinished()):
                print(waits_for, file=sys.stderr, flush=True)

    threading.Thread(target=tell, daemon=True, name="stacks").start()


def _listen() -> queue.SimpleQueue[str]:
    """Read orders in a thread, so that the end of standard input is noticed inside a collective too."""
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(line)
        os.killpg(os.getpgid(0), signal.SIGKILL)  # our own session: this rank and what its engine started

    threading.Thread(target=read, daemon=True, name="orders").start()
    return orders


def _start_torch(order: Start) -> None:
    import torch
    import torch.distributed as dist

    # Oversubscribed ranks slow down up to 20 times, and a decode differs with the number of threads.
    torch.set_num_threads(1)
    if order.device == "cuda":
        if order.device_index >= torch.cuda.device_count():
            known = f"torch sees {torch.cuda.device_count()} GPUs here"
            raise RuntimeError(f"{known}: none is left for rank {order.rank} of {order.world_size}")
        torch.cuda.set_device(order.device_index)
        # In cuDNN it is on by default: what is asked for in float32 would be computed with ten bits.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if order.world_size == 1:
        return
    # Who limits the time is the harness: NCCL's own watch would end a rank that hangs before its stacks are asked for.
    os.environ.setdefault("TORCH_NCCL_ENABLE_MONITORING", "0")
    os.environ.setdefault("NCCL_DEBUG", "WARN")  # what went wrong, which torch does not always pass on
    backend = "nccl" if order.device == "cuda" else "gloo"
    group: dict[str, Any] = {"rank": order.rank, "world_size": order.world_size, "timeout": PATIENCE}
    if order.rendezvous.startswith("tcp://"):
        dist.init_process_group(backend, init_method=order.rendezvous, **group)
        return
    if sys.platform == "linux":  # all ranks are here, whatever the machine's name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(order.rendezvous, order.world_size)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, **group)


def _versions(packages: tuple[str, ...], device: Device) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = build.version(package)
    if device == "cuda":
        import torch

        versions["device"] = torch.cuda.get_device_name()
        versions["TF32"] = "on" if torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32 else "off"
        if driver := _driver():
            versions["driver"] = driver
    return versions


def _driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of NVIDIA's kernel driver, which may change figures and times; ``None`` where it is not known."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None
