"""Structural similarity on a GPU, in float64 as on the processor: a matter of milliseconds, whatever the picture."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d

from harness.metrics._ssim import MARGIN, similarity, taps

TILE_PIXELS = 2**20
"""Windows that are computed at once, in 12 planes of float64 at each stage: calls are what it costs the processor."""


def mean_ssim_on(device: str, reference: Any, candidate: Any) -> float:
    """Compute the mean SSIM of two ``H,W,C`` uint8 pictures on a device of torch.

    Raises
    ------
    RuntimeError
        If the device fails, or has no memory to spare.
    """
    there = torch.device(device)
    # Memory that a GPU reads belongs to the current one, which by default is another run's perhaps.
    with torch.inference_mode(), torch.cuda.device(there) if there.type == "cuda" else contextlib.nullcontext():
        window = torch.from_numpy(taps()).to(there)  # first: it waits for all that was asked for before
        x, y = (_on(there, picture) for picture in (reference, candidate))
        num_rows, num_columns = x.shape[1] - MARGIN, x.shape[2] - MARGIN
        tile_rows = max(1, TILE_PIXELS // num_columns)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for top in range(0, num_rows, tile_rows):
            rows = slice(top, top + tile_rows + MARGIN)
            total += similarity(_windowed_moments(x[:, rows], y[:, rows], window)).sum()
        _sleep_until_done(x.device)
        return float(total) / (len(x) * num_rows * num_columns)


def _on(there: torch.device, picture: Any) -> torch.Tensor:
    """Bring a picture there as ``C,H,W``, one byte a value; from memory the GPU reads, or its driver would wait."""
    here = torch.empty(picture.shape, dtype=torch.uint8, pin_memory=there.type == "cuda")
    np.copyto(here.numpy(), picture)
    return here.to(there, non_blocking=True).movedim(-1, 0)


def _windowed_moments(x: torch.Tensor, y: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Windowed means of ``x + y``, ``x - y`` and the squares of both: ``4,C,rows,columns`` float64."""
    moments = torch.empty((4, *x.shape), dtype=torch.float64, device=x.device)
    a, b = moments[2].copy_(x), moments[3].copy_(y)
    torch.add(a, b, out=moments[0])
    torch.sub(a, b, out=moments[1])
    torch.square(moments[:2], out=moments[2:])
    planes = moments.flatten(0, 1)[None]
    weights = window.repeat(planes.shape[1], 1, 1)  # a group for each plane: in float64 torch's own kernel does that
    for down_or_across in (weights[..., None], weights[:, :, None]):
        planes = conv2d(planes, down_or_across, groups=len(weights))
    return planes.view(4, len(x), *planes.shape[2:])


def _sleep_until_done(device: torch.device) -> None:
    """Wait without turning on the processor, as asking for the value would: ranks may hold the GPU meanwhile."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()
