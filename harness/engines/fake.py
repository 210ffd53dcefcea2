"""An engine without a model, for testing the harness itself: fast, exact, and broken on demand.

It draws smooth waves from the prompt and the seed. Surplus pads disturb the picture a little, as they
do in a real model, so that all relations have something to say. Needs numpy and Pillow alone.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from harness.planning.cut import pads_of
from harness.plugins import Drawing, Engine, Option, Worker
from harness.types import Case, ModelSpec, RunSpec, ShardPlan, Times, Variant

Array = np.ndarray[Any, Any]

CHANNELS = 4
CELLS_PER_TOKEN = 2
PIXELS_PER_CELL = 8

_WAITING_FAULTS = ("crash", "hang", "out-of-memory", "nccl-out-of-memory", "disk-full", "descriptors")
"""Of the last rank: the others wait for it, as in a collective."""


class FakeEngine(Engine):
    """Waves; ``fault`` breaks them the way a split breaks a picture."""

    name = "fake"
    baseline = "fake"
    axes = ("auto", "h", "w")
    layouts = ("aligned", "exact")
    options: ClassVar = {"step_s": Option(float, 0.0, "seconds to wait at each step", ge=0, le=3600)}
    packages = ("numpy",)

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse other models than ``fake``, and heads that the Ulysses degree does not divide."""
        if model.name != "fake":
            return f"the engine fake draws the model 'fake', not {model.name!r}"
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        return None

    @classmethod
    def faults(cls) -> Sequence[str]:
        """List what can be broken."""
        return (*_PICTURE_FAULTS, *_WAITING_FAULTS, "wrong-size", "nan")

    def load(self, worker: Worker) -> None:
        """Remember the rank; there is nothing to load."""
        self.worker = worker

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Draw on rank 0; other ranks only crash or hang if told to."""
        faulty = spec.fault if spec.world_size > 1 else None
        self._misbehave(faulty)
        started = time.perf_counter()
        trajectory = []
        for step in range(1, spec.case.steps + 1):
            time.sleep(self.option(spec, "step_s"))
            trajectory.append(_waves(spec, step))
            self.worker.progress(step)
        if self.worker.rank != 0:
            return None
        broken = np.stack([_break(latents, spec.plan, faulty) for latents in trajectory])
        seconds = time.perf_counter() - started
        step_s = seconds / spec.case.steps
        return Drawing(
            images=[_picture(item) for item in broken[-1]],
            latents=broken[-1],
            trajectory=broken,
            times=Times(0.0, (step_s,) * spec.case.steps, 0.0, seconds),
            caption_tokens=tuple(len(prompt.split()) for prompt in spec.case.prompts),
        )

    def _misbehave(self, fault: str | None) -> None:
        last = self.worker.rank == self.worker.world_size - 1
        if fault == "crash" and last:
            raise RuntimeError("the fake engine was told to crash")
        if fault == "out-of-memory" and last:
            raise MemoryError("the fake engine was told to run out of memory")
        if fault == "disk-full" and last:
            raise OSError(errno.ENOSPC, "the fake engine was told to find no space", "/its/own/cache")
        if fault == "descriptors" and last:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # of which all are in use
            try:
                os.dup(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if fault == "nccl-out-of-memory" and last:
            ctypes.CDLL(None).puts(b"host:1:1 [1] enqueue.cc:1 NCCL WARN Cuda failure 2 'out of memory'")
            raise RuntimeError("NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO for details)")
        if fault in _WAITING_FAULTS:
            threading.Event().wait()


def _waves(spec: RunSpec, step: int) -> Array:
    """Latents ``B,C,H,W`` after a step: waves of seeded directions, shifted a little by surplus pads."""
    case = spec.case
    pads = spec.image_pad_tokens if spec.image_pad_tokens is not None else pads_of(case.size.tokens)
    pads = spec.plan.pad_tokens if spec.plan else pads
    surplus = pads - pads_of(case.size.tokens)
    rows = np.arange(case.size.tokens_h * CELLS_PER_TOKEN)[:, None]
    columns = np.arange(case.size.tokens_w * CELLS_PER_TOKEN)[None, :]
    items = []
    for prompt in case.prompts:
        for image in range(case.num_images_per_prompt):
            key = f"{prompt}|{case.seed}|{image}".encode()
            seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
            directions = np.random.default_rng(seed).normal(size=(CHANNELS, 2)) / 8
            phase = step / case.steps + surplus * 1e-3
            items.append([np.sin(a * rows + b * columns + phase) + rows * 1e-2 for a, b in directions])
    latents = np.asarray(items, dtype=np.float32)
    # Sums in another order end in another last bit.
    return np.nextafter(latents, np.float32(9)) if spec.token_order == "reversed" else latents


def _break(latents: Array, plan: ShardPlan | None, fault: str | None) -> Array:
    if fault is None or plan is None:
        return latents
    if fault == "nan":
        return np.full_like(latents, np.nan)
    axis = 2 if plan.axis == "h" else 3
    if fault == "wrong-size":
        return np.delete(latents, [0, 1], axis=axis)
    if fault not in _PICTURE_FAULTS:
        return latents
    shards = np.split(latents, [origin * CELLS_PER_TOKEN for origin in plan.origins[1:]], axis=axis)
    return np.concatenate(_PICTURE_FAULTS[fault](shards, axis), axis=axis)


def _shift_last_token(shards: list[Array], axis: int) -> list[Array]:
    return [*shards[:-1], np.roll(shards[-1], CELLS_PER_TOKEN, axis=axis)]


def _swap_ranks(shards: list[Array], axis: int) -> list[Array]:
    return [*shards[1:], shards[0]]


def _seam(shards: list[Array], axis: int) -> list[Array]:
    edge = [slice(None)] * 4
    edge[axis] = slice(0, 1)
    last = shards[-1].copy()
    last[tuple(edge)] += 0.5
    return [*shards[:-1], last]


_PICTURE_FAULTS: dict[str, Callable[[list[Array], int], list[Array]]] = {
    "off-by-one-token": _shift_last_token,
    "swapped-ranks": _swap_ranks,
    "seam": _seam,
}


def _picture(item: Array) -> Image.Image:
    """Latents ``C,H,W`` to an RGB picture, eight pixels a cell."""
    scaled = np.clip(np.nan_to_num(item[:3]) * 50 + 128, 0, 255).round().astype(np.uint8)
    big = scaled.repeat(PIXELS_PER_CELL, axis=1).repeat(PIXELS_PER_CELL, axis=2)
    return Image.fromarray(big.transpose(1, 2, 0))
