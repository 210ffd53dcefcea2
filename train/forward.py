"""The transformer's forward pass for a batch of equal sizes: what diffusers computes, without its lists.

diffusers walks through a batch sample by sample in Python. Here all samples have one size and captions
one padded length, so positions are computed once and every layer is a few large products.
``tests/train/test_training.py`` holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SEQUENCE_MULTIPLE = 32
Block = Callable[..., Tensor]


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _linear(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight.to(dtype))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of ``B,N,heads,d`` by the angles ``N,d/2`` of their token."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def block(
    x: Tensor, cos: Tensor, sin: Tensor, modulation: Tensor | None, weights: tuple[Tensor, ...], dtype: torch.dtype
) -> Tensor:
    """One transformer block; its weights come as arguments, so that one compilation serves all layers."""
    q, k, v, out, norm_q, norm_k, before1, after1, before2, after2, w1, w2, w3 = weights
    head_dim = norm_q.shape[0]
    scale1 = gate1 = scale2 = gate2 = x.new_ones(())
    if modulation is not None:
        scale1, gate1, scale2, gate2 = modulation[:, None].chunk(4, dim=-1)
        scale1, scale2, gate1, gate2 = 1 + scale1, 1 + scale2, gate1.tanh(), gate2.tanh()
    normed = _norm(x, before1, 1e-5) * scale1
    heads = [_linear(normed, weight, dtype).unflatten(-1, (-1, head_dim)) for weight in (q, k, v)]
    query = _rotate(_norm(heads[0], norm_q, 1e-5), cos, sin).to(dtype)
    key = _rotate(_norm(heads[1], norm_k, 1e-5), cos, sin).to(dtype)
    mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), heads[2].transpose(1, 2))
    mixed = _linear(mixed.transpose(1, 2).flatten(2), out, dtype)
    x = x + gate1 * _norm(mixed, after1, 1e-5)
    normed = _norm(x, before2, 1e-5) * scale2
    fed = _linear(F.silu(_linear(normed, w1, dtype)) * _linear(normed, w3, dtype), w2, dtype)
    return x + gate2 * _norm(fed, after2, 1e-5)


def _weights(layer: Any) -> tuple[Tensor, ...]:
    a, f = layer.attention, layer.feed_forward
    modules = (a.to_q, a.to_k, a.to_v, a.to_out[0], a.norm_q, a.norm_k, layer.attention_norm1, layer.attention_norm2)
    return tuple(module.weight for module in (*modules, layer.ffn_norm1, layer.ffn_norm2, f.w1, f.w2, f.w3))


def _angles(model: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    turns = model.rope_embedder(positions)
    return turns.real.contiguous(), turns.imag.contiguous()


def image_positions(height: int, width: int, start: int, pads: int, device: torch.device) -> Tensor:
    """Positions ``N,3`` of image tokens in rows, pads at (0, 0, 0) behind them."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    grid = torch.stack([torch.full_like(rows, start), rows, columns], dim=-1).flatten(0, 1)
    return torch.cat([grid, grid.new_zeros(pads, 3)])


def forward(
    model: Any,
    latents: Tensor,
    t: Tensor,
    captions: Tensor,
    lengths: Tensor,
    dtype: torch.dtype = torch.float32,
    run_block: Block = block,
) -> Tensor:
    """Output of ``ZImageTransformer2DModel`` for a batch of one size.

    Parameters
    ----------
    model : ZImageTransformer2DModel
        Its weights are used, its forward is not.
    latents : Tensor
        ``B,16,h,w``.
    t : Tensor
        ``B``, between 0 (noise) and 1 (clean), as the pipeline passes it.
    captions, lengths : Tensor
        Features ``B,L,d`` with L a multiple of 32, and the number of real tokens ``B``.
    dtype : torch.dtype
        Of matrix products and attention; the stream itself stays float32.
    run_block : callable
        :func:`block`, or the same compiled.

    Returns
    -------
    Tensor
        ``B,16,h,w`` float32: the negative of the velocity.
    """
    batch, channels, full_height, full_width = latents.shape
    height, width, length = full_height // 2, full_width // 2, captions.shape[1]
    tokens = height * width
    pads = -tokens % SEQUENCE_MULTIPLE
    condition = model.t_embedder(t * model.t_scale)
    x = latents.view(batch, channels, height, 2, width, 2).permute(0, 2, 4, 3, 5, 1).reshape(batch, tokens, -1)
    x = model.all_x_embedder["2-1"](x)
    x = torch.cat([x, model.x_pad_token.expand(batch, pads, -1)], dim=1)
    x_angles = _angles(model, image_positions(height, width, length + 1, pads, x.device))
    for layer in model.noise_refiner:
        x = run_block(x, *x_angles, layer.adaLN_modulation(condition), _weights(layer), dtype)

    steps = torch.arange(length, device=x.device)
    captions = model.cap_embedder[1](_norm(captions, model.cap_embedder[0].weight, 1e-5))
    captions = torch.where((steps < lengths[:, None])[..., None], captions, model.cap_pad_token)
    cap_angles = _angles(model, F.pad(steps[:, None] + 1, (0, 2)))
    for layer in model.context_refiner:
        captions = block(captions, *cap_angles, None, _weights(layer), dtype)

    unified = torch.cat([x, captions], dim=1)
    cos, sin = (torch.cat(pair) for pair in zip(x_angles, cap_angles, strict=True))
    for layer in model.layers:
        unified = run_block(unified, cos, sin, layer.adaLN_modulation(condition), _weights(layer), dtype)
    final = model.all_final_layer["2-1"]
    scale = 1 + final.adaLN_modulation(condition)[:, None]
    x = final.linear(F.layer_norm(unified[:, :tokens], unified.shape[-1:], eps=1e-6) * scale)
    drawn: Tensor = x.view(batch, height, width, 2, 2, channels).permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)
    return drawn
