"""The transformer: flow matching in the pipeline's own conventions, on every size the harness draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from train import render, text, vae
from train.forward import block, forward
from train.grammar import KINDS, Scene
from train.state import Schedule, Trainee

SHIFT = 3.0
"""Of the scheduler: a step at s stands at noise level 3s / (1 + 2s)."""

REPEATS = 2
"""Noises and times drawn for each scene of a step: rendering and encoding cost about as much as training does."""

STEPS_PER_BATCH = 8
"""Steps that share a batch, each with scenes of its own: few large renderings keep a GPU busy, many small ones do
not."""

BATCHES = 4
"""Batches in use at a time, so that neighbouring steps differ in size."""

BLOCK = BATCHES * STEPS_PER_BATCH

PIXELS_AT_ONCE = 48 * 1280 * 720
"""Rendered at a time: some ten float pictures of each scene are alive."""

TOKENS = 65_536
"""Image tokens of a step, whatever the size."""

ON_THINGS = 4.0
"""What an error where a thing stands counts more than one elsewhere: things cover a tenth of a picture, and are what
its prompt is about."""

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
    """The batches, in order; each follows from the seed, its number and the schedule alone."""

    def __init__(self, seed: int, first: int, schedule: Schedule, tokens: int) -> None:
        self.seed, self.first, self.schedule, self.tokens = seed, first, schedule, tokens

    def __len__(self) -> int:
        return 1 << 30  # as many as are asked for

    def __getitem__(self, index: int) -> Batch:
        number = self.first + index
        rng = random.Random(f"{self.seed}/dit/{number}")
        width, height = size_at(rng, self.schedule.progress(number * STEPS_PER_BATCH))
        bucket = rng.choices((32, 64, 96, 128), (10, 5, 3, 2))[0]
        kinds = rng.sample(KINDS, render.KINDS_PER_BATCH)
        count = STEPS_PER_BATCH * max(1, min(256, self.tokens // (width * height) // REPEATS))
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


class Painter(nn.Module):
    """What is trained together: the transformer, and the encoder that reads its prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = build()
        self.text_encoder = text.build_encoder()


class Prepared(NamedTuple):
    """A batch on the device: what :data:`STEPS_PER_BATCH` steps need, one slice of the first dimension each."""

    latents: Tensor
    """``B,16,h,w``."""
    weights: Tensor
    """``B,1,h,w`` of errors, one on average."""
    ids: Tensor
    lengths: Tensor


class DitTrainee(Trainee):
    """Flow matching: from ``(1 - level) x + level noise`` the transformer tells ``x - noise``."""

    name = "dit"

    def __init__(
        self, autoencoder: Any, device: str, seed: int, schedule: Schedule, tokens: int = TOKENS, workers: int = 0,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        super().__init__(Painter().to(device), device, seed, schedule, peak_lr=1.5e-3, ema_decay=0.9985)
        self.autoencoder = autoencoder.to(device).eval().requires_grad_(False)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.tokens, self.workers = tokens, workers
        self.block = torch.compile(block, dynamic=True) if compiled else block
        self._batches: Iterator[Batch] | None = None
        self._in_use: list[Prepared] = []
        if compiled:
            self._warm_up()

    def _warm_up(self) -> None:
        """Compile with sizes that differ from each other and from the width, so that none is taken for fixed."""
        latents, captions = (torch.randn(shape, device=self.device) for shape in ((5, 16, 26, 34), (5, 32, 128)))
        levels, lengths = (torch.full((5,), value, device=self.device) for value in (0.5, 20))
        model = self.model.transformer
        forward(model, latents, levels, captions, lengths, self.dtype, self.block).sum().backward()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Of one step's scenes, with their size for the log."""
        part = self._slice(step)
        captions = text.features(self.model.text_encoder, part.ids, part.lengths).repeat(REPEATS, 1, 1)
        latents, weights = part.latents.repeat(REPEATS, 1, 1, 1), part.weights.repeat(REPEATS, 1, 1, 1)
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
        levels = noise_levels(len(latents), self.device, generator)
        noise = torch.randn(latents.shape, generator=generator, device=self.device)
        mixed = torch.lerp(latents, noise, levels[:, None, None, None])
        lengths = part.lengths.repeat(REPEATS)
        model = self.model.transformer
        drawn = forward(model, mixed, 1 - levels, captions, lengths, self.dtype, run_block=self.block)
        error = (drawn - (latents - noise)).pow(2)
        figures: dict[str, float | Tensor] = {
            "plain": error.detach().mean(),
            "tokens": latents[0, 0].numel() / 4.0,
            "caption": float(captions.shape[1]),
        }
        return (weights * error).mean(), figures

    def _slice(self, step: int) -> Prepared:
        """The scenes of a step; a block of steps shares some batches and takes from each in turn."""
        if self._batches is None:
            dataset = Batches(self.seed, step // BLOCK * BATCHES, self.schedule, self.tokens)
            loader = DataLoader(
                dataset, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is,
                prefetch_factor=4 if self.workers else None,
            )  # fmt: skip
            self._batches = iter(loader)
        if not self._in_use or step % BLOCK == 0:
            self._in_use = [self._prepare(next(self._batches)) for _ in range(BATCHES)]
        turn, which = divmod(step % BLOCK, BATCHES)
        return Prepared(*(tensor.chunk(STEPS_PER_BATCH)[turn] for tensor in self._in_use[which]))

    @torch.no_grad()
    def _prepare(self, batch: Batch) -> Prepared:
        """Render and encode, in parts that fit."""
        latents, weights = [], []
        share = max(1, PIXELS_AT_ONCE // (batch.width * batch.height * 256))
        for first in range(0, len(batch.scenes), share):
            pixels, things = render.layers(
                batch.scenes[first : first + share], batch.width * 16, batch.height * 16, self.device
            )
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                latents.append(vae.encode(self.autoencoder, pixels).float())
            # A little wider than the things: their outlines are the hard part.
            near = F.max_pool2d(F.max_pool2d(things, 8), 3, stride=1, padding=1)
            weights.append(1 + ON_THINGS * near)
        weight = torch.cat(weights)
        return Prepared(
            torch.cat(latents), weight / weight.mean(), batch.ids.to(self.device), batch.lengths.to(self.device)
        )
