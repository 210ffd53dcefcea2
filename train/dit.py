"""The transformer: flow matching in the pipeline's own conventions, on every size the harness draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from train import render, text, vae
from train.forward import block, forward
from train.grammar import KINDS, Scene
from train.state import Trainee

SHIFT = 3.0
"""Of the scheduler: a step at s stands at noise level 3s / (1 + 2s)."""

REPEATS = 4
"""Noises and times drawn for each scene of a batch: rendering and encoding cost as much as training does."""

REUSE = 2
"""Steps in a row that train on the same scenes, with other noises and times."""

TOKENS = 65_536
"""Image tokens of a batch, whatever its size."""

REAL_SIZES = ((80, 45), (45, 80), (45, 45), (64, 64), (32, 32), (48, 27), (27, 48), (85, 48), (60, 34), (40, 40))
"""Width and height in tokens of 16 pixels, 1280x720 first; many with an odd number of tokens."""


def build(**changes: Any) -> Any:
    """An untrained transformer of the embedded model's shape."""
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(
        **{
            "in_channels": 16, "dim": 192, "n_layers": 4, "n_refiner_layers": 2, "n_heads": 6, "n_kv_heads": 6,
            "norm_eps": 1e-5, "qk_norm": True, "cap_feat_dim": 128, "rope_theta": 256.0, "t_scale": 1000.0,
            "axes_dims": [8, 12, 12], "axes_lens": [1024, 512, 512],
        }
        | changes
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("pad_token"):
            nn.init.normal_(parameter, std=0.5)
        elif "adaLN_modulation" in name:
            nn.init.zeros_(parameter)
            if name.endswith("bias") and "final" not in name:
                # scale, gate, scale, gate: every block adds a little from the start
                parameter.data.view(4, -1)[1::2] = 0.3
        elif "all_final_layer" in name:
            nn.init.zeros_(parameter)
    return model


def sizes_at(progress: float) -> tuple[float, float, float]:
    """Weights of small, middle and real sizes: small ones first, where a step sees most scenes."""
    if progress < 0.25:
        return 0.85, 0.15, 0.0
    if progress < 0.5:
        return 0.4, 0.5, 0.1
    return 0.15, 0.25, 0.6


def size_at(rng: random.Random, progress: float) -> tuple[int, int]:
    """Width and height in tokens."""
    kind = rng.choices(("small", "middle", "real"), sizes_at(progress))[0]
    if kind == "real":
        return rng.choice(REAL_SIZES + REAL_SIZES[:3])
    low, high = (6, 20) if kind == "small" else (14, 40)
    width = rng.randint(low, high)
    return width, max(low, min(high, round(width * rng.choice((0.5625, 0.625, 0.75, 1, 1, 1.33, 1.6, 1.78)))))


class Batch(NamedTuple):
    """What a step needs before anything is rendered."""

    width: int
    height: int
    scenes: list[Scene]
    ids: Tensor
    lengths: Tensor


class Batches(Dataset[Batch]):
    """The batch of every step; it follows from seed and step alone."""

    def __init__(self, seed: int, first: int, steps: int, tokens: int) -> None:
        self.seed, self.first, self.steps, self.tokens = seed, first, steps, tokens

    def __len__(self) -> int:
        return -(-self.steps // REUSE) - self.first

    def __getitem__(self, index: int) -> Batch:
        number = self.first + index
        rng = random.Random(f"{self.seed}/dit/{number}")
        width, height = size_at(rng, number * REUSE / self.steps)
        bucket = rng.choices((32, 64, 96, 128), (10, 5, 3, 2))[0]
        kinds = rng.sample(KINDS, render.KINDS_PER_BATCH)
        count = max(1, min(96, self.tokens // (width * height) // REPEATS))
        drawn = [text.prompt_in_bucket(rng, bucket, kinds) for _ in range(count)]
        if bucket == 32:
            # Guidance asks for a picture of no words at all.
            drawn = [(scene, text.token_ids("")) if rng.random() < 0.04 else (scene, ids) for scene, ids in drawn]
        return Batch(width, height, [scene for scene, _ in drawn], *text.padded([ids for _, ids in drawn], bucket))


def _as_it_is(batch: Any) -> Any:
    return batch


def noise_levels(count: int, device: str, generator: torch.Generator) -> Tensor:
    """Levels between 0 (clean) and 1 (noise): half where 2, 4 and 8 steps stop, half anywhere, shifted alike."""
    draws = torch.rand(3, count, generator=generator, device=device)
    stops = torch.tensor([1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 1, 0.875, 0.625, 0.375, 0.125], device=device)
    stops = stops[(draws[0] * len(stops)).long().clamp(max=len(stops) - 1)]
    s = torch.where(draws[1] < 0.5, stops, draws[2] * 0.995 + 0.005)
    return SHIFT * s / (1 + (SHIFT - 1) * s)


class DitTrainee(Trainee):
    """Flow matching: from ``(1 - level) x + level noise`` the transformer tells ``x - noise``."""

    name = "dit"

    def __init__(
        self, autoencoder: Any, device: str, seed: int, steps: int, tokens: int = TOKENS, workers: int = 0,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        super().__init__(build().to(device), device, seed, steps, peak_lr=1.5e-3, ema_decay=0.9985)
        self.autoencoder = autoencoder.to(device).eval().requires_grad_(False)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.tokens, self.workers = tokens, workers
        self.block = torch.compile(block, dynamic=True) if compiled else block
        self._batches: Iterator[Batch] | None = None
        self._prepared: tuple[Tensor, Tensor, Tensor] | None = None
        if compiled:
            self._warm_up()

    def _warm_up(self) -> None:
        """Compile with sizes that differ from each other and from the width, so that none is taken for fixed."""
        latents, captions = (torch.randn(shape, device=self.device) for shape in ((5, 16, 26, 34), (5, 32, 128)))
        levels, lengths = (torch.full((5,), value, device=self.device) for value in (0.5, 20))
        forward(self.model, latents, levels, captions, lengths, self.dtype, self.block).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Of one batch, with its size for the log."""
        if self._batches is None:
            dataset = Batches(self.seed, step // REUSE, self.steps, self.tokens)
            loader = DataLoader(
                dataset, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is,
                prefetch_factor=8 if self.workers else None,
            )  # fmt: skip
            self._batches = iter(loader)
        if self._prepared is None or step % REUSE == 0:
            self._prepared = self._prepare(next(self._batches))
        latents, captions, lengths = self._prepared
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
        levels = noise_levels(len(latents), self.device, generator)
        noise = torch.randn(latents.shape, generator=generator, device=self.device)
        mixed = torch.lerp(latents, noise, levels[:, None, None, None])
        drawn = forward(self.model, mixed, 1 - levels, captions, lengths, self.dtype, run_block=self.block)
        loss = (drawn - (latents - noise)).pow(2).mean()
        return loss, {"tokens": latents[0, 0].numel() / 4.0, "caption": float(captions.shape[1])}

    def _prepare(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, caption features and caption lengths, each scene several times."""
        ids, lengths = batch.ids.to(self.device), batch.lengths.to(self.device)
        captions = text.features(ids, lengths).repeat(REPEATS, 1, 1)
        return self._latents(batch).repeat(REPEATS, 1, 1, 1), captions, lengths.repeat(REPEATS)

    @torch.no_grad()
    def _latents(self, batch: Batch) -> Tensor:
        pixels = render.render(batch.scenes, batch.width * 16, batch.height * 16, self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            return vae.encode(self.autoencoder, pixels).float()
