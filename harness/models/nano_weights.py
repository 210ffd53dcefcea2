"""Weights of the embedded model: random numbers, laid out so that the network behaves like a trained one.

Plain random weights would test little: attention would be flat, so that a lost or doubled token
hardly shows, and the picture would be grey noise. The layout below gives the stream of the
transformer three lanes that the blocks read but never write (`IMAGE_LANE` and `CAPTION_LANE`, constants
that tell the two kinds of token apart, and `LATENT_LANES`, the token's own latents) and gives each
attention head something to look for: its neighbours, the caption, or similar content.

Every number comes from integer arithmetic and single float64 operations, never from a sum of
floats or a library's normal distribution: those differ in the last bit between processors, and the
bytes of this model are part of what a golden output is held to.

Measured in float32 (256x256 unless another size is named, 4 steps; PSNR over the final latents, data range their span;
``tests/models/test_nano.py`` holds the bounds): attention entropy of the transformer's heads in the main layers
2.9 to 4.7 nats where flat would be 5.66; one word of the prompt replaced 28 dB (1280x720, 2 steps: 41 dB), two
words exchanged 24 dB; noise rolled by half the width and the picture rolled back 30 dB; 64 surplus pads
26 dB at 720x720 and 32 dB at 1280x720 (2 steps). A relative perturbation of 1.0e-6 of the initial noise
arrives as 1.2e-6: the network reacts, but it does not amplify rounding.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

IMAGE_LANE, CAPTION_LANE = 0, 1
LATENT_LANES = slice(64, 128)

NEAR_HEADS, CAPTION_HEADS = (0, 1, 2), (3, 4)
"""What the six heads look for; the last one compares content alone."""

MARK = 4.0
"""Height of the constant lanes; the other lanes have variance one at the embedding."""

CARRIED, DRAWN = 1.8, 1.4
"""How much of the noise the final layer takes away, and how much it draws in its place: latents stay of order one."""

CONTRAST = 0.65
"""Of the decoder: the 8-bit picture spreads by about 50 and few pixels clip."""


def bell(name: str, shape: tuple[int, ...], std: float = 1.0) -> Any:
    """Bell-shaped random numbers that depend on nothing but their name.

    Parameters
    ----------
    name : str
        Seeds the stream: each tensor has its own, so that adding one leaves the others as they were.
    shape : tuple of int
        Shape of the result.
    std : float
        Standard deviation.

    Returns
    -------
    numpy.ndarray
        float64 of the given shape, between -3.5 and 3.5 standard deviations: the sum of four 16-bit
        integers (Irwin-Hall), equal to the last bit on every machine.
    """
    import numpy as np

    draws = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    sums = draws.view(np.uint16).reshape(-1, 4).astype(np.int64).sum(axis=1)
    return ((sums - 2 * 65535) * (std * math.sqrt(3.0) / 65536)).reshape(shape)


def fill(module: Any, prefix: str, draw: Any) -> None:
    """Overwrite every parameter of a module with ``draw(name, shape)``; the constructor's values are unused."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = draw(f"{prefix}.{name}", tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values).to(parameter.dtype))


def text_encoder(name: str, shape: tuple[int, ...]) -> Any:
    """Values of one parameter of the Qwen3 encoder; each layer adds about as much as the stream holds."""
    import numpy as np

    if name.endswith("norm.weight"):
        return np.full(shape, 1.6 if re.search(r"[qk]_norm", name) else 1.0)
    if "embed_tokens" in name:
        return bell(name, shape)
    return bell(name, shape, std=1.2 / math.sqrt(shape[-1]))


def transformer(name: str, shape: tuple[int, ...]) -> Any:
    """Values of one parameter of the diffusion transformer (dim 192, 6 heads of 32)."""
    import numpy as np

    if name.endswith("pad_token"):
        return bell(name, shape)
    if re.search(r"attention\.norm_[qk]\.weight", name):
        return np.full(shape, 1.45)
    if re.search(r"norm\d?\.weight|cap_embedder\.0\.weight", name):
        return np.ones(shape)
    for pattern, draw in _TRANSFORMER:
        if re.search(pattern, name):
            return draw(name, shape)
    bias = name.endswith("bias")
    return bell(name, shape, std=0.02 if bias else 1 / math.sqrt(shape[-1]))


def _embedder(name: str, shape: tuple[int, ...]) -> Any:
    """Latents (or caption features) to the stream: marks on the constant lanes, latents carried as they are."""
    import numpy as np

    image = "all_x_embedder" in name
    if name.endswith("bias"):
        values = np.zeros(shape)
        values[IMAGE_LANE if image else CAPTION_LANE] = MARK
        return values
    values = bell(name, shape, std=1 / math.sqrt(shape[-1]))
    values[[IMAGE_LANE, CAPTION_LANE]] = 0.0
    if image:
        values[LATENT_LANES] = np.eye(64)
    return values


def _query_or_key(name: str, shape: tuple[int, ...]) -> Any:
    """Content, and on top what the marks mean to each head.

    Near heads see equal vectors on both sides, so that rotary positions alone decide: the score falls
    with distance. Caption heads let image queries meet caption keys in the slowest rotations only,
    which hardly turn between one corner of the picture and the other.
    """
    import numpy as np

    values = bell(name, shape, std=1 / math.sqrt(shape[-1]))
    values[:, [IMAGE_LANE, CAPTION_LANE]] = 0.0
    heads = values.reshape(6, 32, shape[-1])
    signs = np.where(bell(name.rsplit(".", 2)[0] + ".signs", (6, 32)) > 0, 1.0, -1.0)
    fast = [*range(8, 16), *range(20, 28)]
    slow = [6, 7, 18, 19, 30, 31]
    for head in NEAR_HEADS:
        heads[head, fast, IMAGE_LANE] = 3.0 / MARK * signs[head, fast]
    for head in CAPTION_HEADS:
        lanes = [IMAGE_LANE] if ".to_q." in name else [CAPTION_LANE]
        for lane in lanes:
            heads[head, slow, lane] = 3.5 / MARK * signs[head, slow]
    return values


def _value(name: str, shape: tuple[int, ...]) -> Any:
    """Values carry content only: marks are equal on all tokens and would drown what differs."""
    values = bell(name, shape, std=1 / math.sqrt(shape[-1]))
    values[:, [IMAGE_LANE, CAPTION_LANE]] = 0.0
    return values


def _write(name: str, shape: tuple[int, ...]) -> Any:
    """Weights by which attention and feed-forward add to the residual stream."""
    values = bell(name, shape, std=1 / math.sqrt(shape[-1]))
    values[[IMAGE_LANE, CAPTION_LANE]] = 0.0
    values[LATENT_LANES] = 0.0
    return values


def _modulation(name: str, shape: tuple[int, ...]) -> Any:
    """Scales near one and gates that are open at every time step, and move with it."""
    if name.endswith("weight"):
        return bell(name, shape, std=0.3 / math.sqrt(shape[-1]))
    values = bell(name, shape, std=0.1).reshape(4, -1)
    values[1] += 0.6
    values[3] += 0.3
    return values.reshape(shape)


def _final(name: str, shape: tuple[int, ...]) -> Any:
    """Stream to velocity: minus the noise that the latents still hold, plus what the blocks have drawn."""
    import numpy as np

    if name.endswith("bias"):
        return np.zeros(shape)
    if "adaLN" in name:
        return bell(name, shape, std=0.1 / math.sqrt(shape[-1]))
    drawn = bell(name + ".drawn", (16, shape[-1]), std=1 / math.sqrt(shape[-1]))
    # The four latent pixels of a token share most of what is drawn: a picture, not a mosaic.
    values = np.tile(drawn, (4, 1)) * DRAWN + bell(name, shape, std=0.25 * DRAWN / math.sqrt(shape[-1]))
    values[:, LATENT_LANES] = -CARRIED * np.eye(64)
    values[:, [IMAGE_LANE, CAPTION_LANE]] = 0.0
    return values


_TRANSFORMER = (
    (r"all_x_embedder|cap_embedder", _embedder),
    (r"to_[qk]\.weight", _query_or_key),
    (r"to_v\.weight", _value),
    (r"to_out\.0\.weight|feed_forward\.w2", _write),
    (r"all_final_layer", _final),
    (r"adaLN_modulation", _modulation),
)


def vae(name: str, shape: tuple[int, ...]) -> Any:
    """Values of one parameter of the autoencoder: smooth kernels, so that the decoder paints areas, not grain."""
    import numpy as np

    if "norm" in name:
        return np.ones(shape) if name.endswith("weight") else np.zeros(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    if len(shape) < 4 or shape[-1] == 1:
        return bell(name, shape, std=1 / math.sqrt(shape[1]))
    blur = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    mix = bell(name + ".mix", (*shape[:2], 1, 1), std=1 / math.sqrt(shape[1]))
    grain = bell(name, shape, std=0.15 / math.sqrt(9 * shape[1]))
    if name.endswith("decoder.conv_out.weight"):
        # Opposite signs on pairs of channels: the mean of the picture stays grey whatever they hold.
        mix[:, 1::2] = -mix[:, ::2]
        return CONTRAST * (mix * blur)
    return mix * blur + grain
