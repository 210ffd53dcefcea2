"""Kernels of a recorded step by kind, from torch's profiler."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from harness.spatial.steps import Recording

WORDS: Mapping[str, tuple[str, ...]] = {
    "exchange": ("nccl",),
    "attention": ("flash", "fmha", "attention"),
    "products": ("gemm", "gemv", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
}
"""Parts of the names of kernels, tried in this order."""

KINDS = (*WORDS, "rest", "idle")
"""Kinds of kernels, and no kernel; the rest are norms, rotary embedding, modulation and copies."""

REPLAYS = 5


def profiled(recording: Recording) -> dict[str, float]:
    """Measure some replays, then profile them; all ranks together.

    Returns
    -------
    dict
        ``wall_s`` of a replay without profiler, of each kind its seconds, and the number of ``kernels``. ``idle`` is
        what no kernel accounts for; it is below zero where an exchange ran beside other kernels.
    """
    latents, timestep = recording.latents.clone(), recording.timestep.clone()
    _replay(recording, latents, timestep)
    started = time.perf_counter()
    _replay(recording, latents, timestep)
    wall_s = (time.perf_counter() - started) / REPLAYS
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _replay(recording, latents, timestep)
    found = dict.fromkeys((*KINDS, "kernels"), 0.0)
    for event in profile.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, words in WORDS.items() if any(word in name for word in words)), "rest")
        found[kind] += event.self_device_time_total / 1e6 / REPLAYS
        found["kernels"] += event.count / REPLAYS
    found["idle"] = wall_s - sum(found[kind] for kind in (*WORDS, "rest"))
    return {"wall_s": wall_s, **found}


def _replay(recording: Recording, latents: torch.Tensor, timestep: torch.Tensor) -> None:
    for _ in range(REPLAYS):
        recording(latents, timestep)
    torch.cuda.synchronize()
