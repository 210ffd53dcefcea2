"""The whole training from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train import dit, export, together, vae
from train.state import Schedule

SAVE_EVERY_S = 100.0

HELD_OUT_SIZES = ((256, 256), (1280, 720), (720, 1280))
"""Width and height of the pictures that the finished autoencoder is tried on."""


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
    by_clock: bool = False


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
    together.begin(plan.device)

    autoencoder = _trained_autoencoder(plan, end)
    if autoencoder is None:
        print("time is up; run the same command again to go on", flush=True)
        together.end()
        return False
    if together.rank() == 0:
        for width, height in HELD_OUT_SIZES:
            psnr_db = vae.held_out_psnr_db(autoencoder, plan.device, width, height)
            print(f"autoencoder at {width}x{height}: {psnr_db:.1f} dB on scenes it never saw", flush=True)

    painter = _painter(autoencoder, plan, end)
    complete = False
    while not complete and together.agreed(time.monotonic()) < end:
        complete = painter.run(plan.work, min(SAVE_EVERY_S, end - time.monotonic()))
        if together.rank() == 0:
            export.write(painter.average, autoencoder, plan.export)
    if together.rank() == 0:
        print("complete" if complete else "time is up; run the same command again to go on", flush=True)
    together.end()
    return complete


def _painter(autoencoder: Any, plan: Plan, end: float) -> dit.DitTrainee:
    """The transformer with its text encoder, where the last run left them, else where ``plan.start`` did."""
    now = time.time()
    ends_at = now + end - time.monotonic() if plan.by_clock else None
    schedule = Schedule(plan.dit_steps, now, ends_at)
    painter = dit.DitTrainee(autoencoder, plan.device, plan.seed, schedule, plan.tokens, plan.workers, plan.compile)
    if painter.resume(plan.work):
        print(f"going on at step {painter.step}", flush=True)
    elif plan.start:
        for part in ("transformer", "text_encoder"):
            weights = _started(part, plan).state_dict()
            for network in (painter.model, painter.average):
                network.get_submodule(part).load_state_dict(weights)
    return painter


def _trained_autoencoder(plan: Plan, end: float) -> Any:
    """Train what is left to train; ``None`` if the time is up before it is done."""
    if not plan.vae_steps:
        return _started("vae", plan)
    coder = vae.VaeTrainee(plan.device, plan.seed, plan.vae_steps, plan.pixels)
    if not coder.resume(plan.work) and plan.start:
        weights = _started("vae", plan).state_dict()
        for network in (coder.model, coder.average):
            network.load_state_dict(weights)
    if not coder.run(plan.work, end - time.monotonic()):
        return None
    vae.finish(coder.average, plan.device, plan.seed)
    return coder.average


def _started(part: str, plan: Plan) -> Any:
    """A network of the checkpoint to start from, in float32."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Model

    assert plan.start is not None
    kinds = {"vae": AutoencoderKL, "transformer": ZImageTransformer2DModel, "text_encoder": Qwen3Model}
    kind: Any = kinds[part]
    return kind.from_pretrained(plan.start / part).float().to(plan.device)
