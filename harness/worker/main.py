"""The program inside an engine's own interpreter: one process is one rank.

Forked from :mod:`harness.worker.forkserver`. Orders come as JSON lines on standard input, the first one saying who
this rank is; replies go as JSON lines to a file descriptor of their own. Standard output and error belong to
the engine and end in the rank's log. When standard input closes, the parent is gone or done with us, and the
process ends at once, whatever it is waiting for.
"""

from __future__ import annotations

import faulthandler
import importlib.metadata
import io
import json
import os
import platform
import queue
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import codec, plugins
from harness.plugins import Drawing, Engine, Worker
from harness.types import Device, DType, RunSpec
from harness.worker import exhaustion
from harness.worker.clock import peak_memory_bytes, reset_peak_memory
from harness.worker.collectives import PATIENCE, unfinished
from harness.worker.disk import Unwritable, writing
from harness.worker.probe.recorder import probing

PROCESS_NAME = "sp-rank"
STACK_SIGNAL = signal.SIGUSR1  # as in harness.execution.rank, which may not be imported here
"""Makes a rank print the stacks of all its threads into its log."""

MAX_DETAIL_CHARS = 20_000
"""Of a traceback the end says what was raised; some libraries raise whole tensors."""


@dataclass(frozen=True)
class StartOrder:
    """Who a rank is: the first order it reads."""

    rank: int
    world_size: int
    device: Device
    device_index: int
    dtype: DType
    model_path: str
    rendezvous: str
    """File through which the ranks of a group find each other; no port that others could hold. Empty where
    torchrun has started them, on several nodes, and said in the environment how they do."""


@dataclass(frozen=True)
class Order:
    """Make an engine ready or, where a ``spec`` is given, draw; rank 0 leaves its files in ``folder``."""

    engine: str
    spec: RunSpec | None = None
    folder: str = ""


class Rank:
    """One rank's life: make engines ready, serve requests, report."""

    def __init__(self, start: StartOrder, reply: Callable[..., None]) -> None:
        self.start = start
        self.reply = reply
        self.worker = Worker(
            rank=start.rank,
            world_size=start.world_size,
            device=start.device,
            model_path=start.model_path,
            dtype=start.dtype,
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
            _start_torch(self.start)
            self.torch_started = True
        engine.load(self.worker)
        self.engines[name] = engine
        self.reply(event="ready", versions=_versions(engine.packages, self.start.device))

    def _draw(self, engine: Engine, spec: RunSpec, folder: Path) -> None:
        reset_peak_memory(self.start.device)
        self.worker.counters.clear()
        self.worker.cache_decisions = ()
        with probing(spec, folder, self.start.rank):
            drawing = engine.draw(spec)
        if drawing is None and self.start.rank == 0:
            raise RuntimeError(f"the engine {engine.name} returned no drawing on rank 0")
        reply: dict[str, Any] = {
            "event": "done",
            "peak_memory_bytes": peak_memory_bytes(self.start.device),
            "counters": self.worker.counters,
            "cache_decisions": self.worker.cache_decisions,
        }
        if drawing is not None:
            with writing(folder):
                reply |= _save(drawing, folder)
        self.reply(**reply)

    def _progress(self, step: int) -> None:
        if self.start.rank == 0:
            self.reply(event="step", step=step)


def main(descriptor: int) -> None:
    """Serve orders until standard input closes; replies go to ``descriptor``."""
    faulthandler.enable()
    _answer_stack_signal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a rank ends
    replies = os.fdopen(descriptor, "w", encoding="utf-8")

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    orders = listen()
    rank: Rank | None = None
    while True:
        data = orders.get()
        try:
            if rank is None:
                rank = Rank(codec.decode(StartOrder, data), reply)
            else:
                rank.serve(codec.decode(Order, data))
        except Unwritable as error:
            reply(event="unwritable", folder=str(error.folder), errno=error.number)
        except Exception as error:
            reply(
                event="raised",
                message=f"{type(error).__name__}: {error}".splitlines()[0][:500],
                exhausted=exhaustion.raised_by(error),
                detail=traceback.format_exc()[-MAX_DETAIL_CHARS:],
            )


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


def listen() -> queue.SimpleQueue[Any]:
    """Read orders in a thread, so that the end of standard input is noticed inside a collective too."""
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os.killpg(os.getpgid(0), signal.SIGKILL)  # our own session: this rank and what its engine started

    threading.Thread(target=read, daemon=True, name="orders").start()
    return orders


def _start_torch(order: StartOrder) -> None:
    import torch
    import torch.distributed as dist

    # Oversubscribed ranks slow down up to 20 times, and a decode differs with the number of threads.
    torch.set_num_threads(1)
    if order.device == "cuda":
        if order.device_index >= torch.cuda.device_count():
            known = f"torch sees {torch.cuda.device_count()} GPUs here"
            raise RuntimeError(f"{known}: none is left for rank {order.rank} of {order.world_size}")
        torch.cuda.set_device(order.device_index)
    if order.world_size == 1:
        return
    # Who limits the time is the harness: NCCL's own watch would end a rank that hangs before its stacks are asked for.
    os.environ.setdefault("TORCH_NCCL_ENABLE_MONITORING", "0")
    os.environ.setdefault("NCCL_DEBUG", "WARN")  # what went wrong, which torch does not always pass on
    backend = "nccl" if order.device == "cuda" else "gloo"
    if not order.rendezvous:
        dist.init_process_group(backend, timeout=PATIENCE)
        return
    if sys.platform == "linux":  # all ranks are here, whatever the machine's name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(order.rendezvous, order.world_size)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=order.rank, world_size=order.world_size, timeout=PATIENCE)


def _versions(packages: tuple[str, ...], device: Device) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in packages:
        versions[package] = importlib.metadata.version(package)
    if device == "cuda":
        import torch

        versions["device"] = torch.cuda.get_device_name()
        if driver := _driver():
            versions["driver"] = driver
    return versions


def _driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of NVIDIA's kernel driver, which may change figures and times; ``None`` where it is not told."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def _save(drawing: Drawing, folder: Path) -> dict[str, Any]:
    """Write pictures, unpacked, and latents; return the fields of the run they fill."""
    import numpy as np
    from safetensors.numpy import save_file

    images = []
    for index, image in enumerate(drawing.images):
        name = f"image-{index}.tif"  # a copy of its bytes: packing it would take fifty times as long
        whole = io.BytesIO()  # Pillow writes into a file itself, and does not notice what a full disk leaves out
        image.save(whole, "TIFF")
        (folder / name).write_bytes(whole.getbuffer())
        images.append(name)
    arrays = {"latents": drawing.latents, "trajectory": drawing.trajectory}
    save_file(
        {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()},
        folder / "latents.safetensors",
    )
    return {
        "images": images,
        "latents": "latents.safetensors",
        "times": codec.encode(drawing.times),
        "caption_tokens": list(drawing.caption_tokens),
    }
