"""The autoencoder: 8x compression, 16 latent channels, small enough for one processor core."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import grammar, render
from train.state import Schedule, Trainee

CHANNELS = (16, 16, 32, 32)
SIZES = ((256, 256), (320, 192), (192, 320), (128, 192), (512, 512), (640, 368), (368, 640), (1280, 720), (720, 1280))
"""Width and height; the large ones teach what wide even areas and far edges look like."""

PIXELS = 2_000_000
"""Of one batch, whatever its size."""

ON_THINGS = 4.0
"""What an error on a thing counts more than one elsewhere."""

NOISE = 0.10
"""Added to latents of spread one while training, so that the decoder forgives what the transformer misses."""


def build(channels: tuple[int, ...] = CHANNELS) -> Any:
    """An untrained autoencoder in the released model's form."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=16,
        # Few groups: a norm over single channels would take the colour out of wide even areas.
        norm_num_groups=4,
        sample_size=1024,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=True,
        use_quant_conv=False,
        use_post_quant_conv=False,
        # Attention over all latent pixels would cost more than the rest of the decoder.
        mid_block_add_attention=False,
    )


def encode(vae: Any, pixels: Tensor) -> Tensor:
    """Latents ``B,16,h,w`` of pictures: the mean, in the units of the pipeline."""
    mean = vae.encoder(pixels)[:, :16]
    latents: Tensor = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    return latents


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures of latents."""
    pixels: Tensor = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    return pixels


def pictures(step: int, seed: int, device: str, pixels: int = PIXELS) -> tuple[Tensor, Tensor]:
    """The batch of a step ``B,3,H,W``, and where its things are ``B,1,H,W``: both follow from its number alone."""
    rng = random.Random(f"{seed}/vae/{step}")
    width, height = rng.choice(SIZES)
    count = max(1, pixels // (width * height))
    kinds = rng.sample(grammar.KINDS, render.KINDS_PER_BATCH)
    return render.layers([grammar.sample(rng, kinds) for _ in range(count)], width, height, device)


def recoloured(real: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures with their colour channels exchanged and faded by chance, every other one as it is.

    Skies and grounds are most of what there is to see, and their green follows from their red and blue: an
    autoencoder that sees nothing else learns two colours instead of three, and red things come out orange.
    """
    count, device = len(real), real.device
    order = torch.rand(count, 3, generator=generator, device=device).argsort(dim=1)
    gain = 0.4 + 0.6 * torch.rand(count, 3, generator=generator, device=device)
    mixed = real.gather(1, order[:, :, None, None].expand_as(real)) * gain[:, :, None, None]
    kept = torch.rand(count, generator=generator, device=device) < 0.5
    return torch.where(kept[:, None, None, None], real, mixed)


class VaeTrainee(Trainee):
    """Absolute error, error of slopes, and a pull of the latents towards spread one."""

    name = "vae"

    def __init__(self, device: str, seed: int, steps: int, pixels: int = PIXELS) -> None:
        torch.manual_seed(seed)
        model = build().to(device)
        super().__init__(model, device, seed, Schedule(steps), peak_lr=2.5e-3, ema_decay=0.997)
        self.pixels = pixels
        if device == "cuda":
            model.to(memory_format=torch.channels_last)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Of one batch, with figures for the log."""
        real, things = pictures(step, self.seed, self.device, self.pixels)
        noise = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)
        real = recoloured(real, noise)
        weight = 1 + ON_THINGS * things
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            mean = self.model.encoder(real)[:, :16].float()
            if step % 4 == 3:
                # A picture of half the size has latents of half the size: what is smooth is easier to draw.
                mean, real, weight = (F.avg_pool2d(tensor, 2) for tensor in (mean, real, weight))
            shaken = mean + NOISE * torch.randn(mean.shape, generator=noise, device=self.device)
            drawn = self.model.decode(shaken, return_dict=False)[0].float()
        error = drawn - real
        weight = weight / weight.mean()
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        spread = mean.pow(2).mean(dim=(0, 2, 3))
        loss = (weight * (error.abs() + 2 * error.pow(2))).mean() + slopes + 2e-3 * (spread - 1).abs().mean()
        psnr = -10 * torch.log10(error.detach().pow(2).mean() / 4)
        return loss, {"psnr_db": psnr, "spread": spread.detach().mean()}


@torch.no_grad()
def finish(vae: Any, device: str, seed: int, pixels: int = 1_000_000) -> None:
    """Give every latent channel spread one, by moving its scale into the weights, and set scale and shift."""
    batches = (pictures(-1 - number, seed, device, pixels)[0] for number in range(12))
    samples = torch.cat([vae.encoder(batch)[:, :16].transpose(0, 1).flatten(1) for batch in batches], dim=1)
    std = samples.std(dim=1)
    out, into = vae.encoder.conv_out, vae.decoder.conv_in
    out.weight[:16] /= std[:, None, None, None]
    out.bias[:16] /= std
    into.weight *= std[:, None, None]
    # The other half of the encoder's output would be a variance: none was trained, so there is none.
    nn.init.zeros_(out.weight[16:])
    nn.init.constant_(out.bias[16:], -12.0)
    vae.register_to_config(scaling_factor=1.0, shift_factor=float((samples / std[:, None]).mean()))


@torch.no_grad()
def held_out_psnr_db(vae: Any, device: str, width: int, height: int, count: int = 8) -> float:
    """Mean PSNR of scenes that training never drew, as 8-bit pictures."""
    rng = random.Random(f"held out/{width}x{height}")
    real = render.render([grammar.sample(rng) for _ in range(count)], width, height, device)
    total = 0.0
    for picture in real.split(1):
        drawn = decode(vae, encode(vae, picture)).clamp(-1, 1)
        levels = ((drawn - picture) * 127.5).round()
        total += float(20 * torch.log10(255 / levels.pow(2).mean().sqrt()))
    return total / count
