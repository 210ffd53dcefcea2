"""The whole training from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train import dit, export, vae

SAVE_EVERY_S = 100.0


@dataclass(frozen=True)
class Plan:
    """What to train, where, and for how long; ``python -m train run --help`` explains each."""

    work: Path
    export: Path
    device: str = "cuda"
    minutes: float = math.inf
    vae_steps: int = 2_000
    dit_steps: int = 24_000
    pixels: int = vae.PIXELS
    tokens: int = dit.TOKENS
    seed: int = 0
    workers: int = 0
    compile: bool = False
    start: Path | None = None
    start_step: int = 0


def run(plan: Plan) -> bool:
    """Train, going on from what ``plan.work`` holds, and export what there is.

    Returns
    -------
    bool
        Whether training is complete; if not, the same call goes on.
    """
    end = time.monotonic() + plan.minutes * 60
    torch.set_float32_matmul_precision("high")
    plan.work.mkdir(parents=True, exist_ok=True)

    autoencoder = _started("vae", plan) if plan.start else _trained_autoencoder(plan, end)
    if autoencoder is None:
        print("time is up; run the same command again to go on", flush=True)
        return False
    for width, height in ((256, 256), (1280, 720), (720, 1280)):
        psnr_db = vae.held_out_psnr_db(autoencoder, plan.device, width, height)
        print(f"autoencoder at {width}x{height}: {psnr_db:.1f} dB on scenes it never saw", flush=True)

    painter = dit.DitTrainee(
        autoencoder, plan.device, plan.seed, plan.dit_steps, plan.tokens, plan.workers, plan.compile
    )
    if painter.resume(plan.work):
        print(f"going on at step {painter.step}", flush=True)
    elif plan.start:
        painter.step = plan.start_step
        weights = _started("transformer", plan).state_dict()
        for network in (painter.model, painter.average):
            network.load_state_dict(weights)
    complete = False
    while not complete and time.monotonic() < end:
        complete = painter.run(plan.work, min(SAVE_EVERY_S, end - time.monotonic()))
        export.write(painter.average, autoencoder, plan.export)
    print("complete" if complete else "time is up; run the same command again to go on", flush=True)
    return complete


def _trained_autoencoder(plan: Plan, end: float) -> Any:
    """Train what is left to train; ``None`` if the time is up before it is done."""
    coder = vae.VaeTrainee(plan.device, plan.seed, plan.vae_steps, plan.pixels)
    coder.resume(plan.work)
    if not coder.run(plan.work, end - time.monotonic()):
        return None
    vae.finish(coder.average, plan.device, plan.seed)
    return coder.average


def _started(part: str, plan: Plan) -> Any:
    """A network of the checkpoint to start from, in float32."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel

    assert plan.start is not None
    kind = AutoencoderKL if part == "vae" else ZImageTransformer2DModel
    return kind.from_pretrained(plan.start / part).float().to(plan.device)
