"""Structural similarity on a GPU, in float64 as on the processor: a matter of milliseconds, whatever the picture."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch

from harness.metrics._ssim import MARGIN, similarity, taps

TILE_ROWS = 256
"""Windows from top to bottom that are computed at once: some 200 MB for a picture 2048 px wide."""


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
        x, y = (_on(there, picture) for picture in (reference, candidate))
        num_rows, num_columns = x.shape[1] - MARGIN, x.shape[2] - MARGIN
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for top in range(0, num_rows, TILE_ROWS):
            rows = slice(top, top + TILE_ROWS + MARGIN)
            total += similarity(_windowed_moments(x[:, rows], y[:, rows])).sum()
        _sleep_until_done(x.device)
        return float(total) / (len(x) * num_rows * num_columns)


def _on(there: torch.device, picture: Any) -> torch.Tensor:
    """Bring a picture there as ``C,H,W``, one byte a value; from memory the GPU reads, or its driver would wait."""
    here = torch.empty(picture.shape, dtype=torch.uint8, pin_memory=there.type == "cuda")
    np.copyto(here.numpy(), picture)
    return here.to(there, non_blocking=True).movedim(-1, 0)


def _windowed_moments(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Windowed means of ``x + y``, ``x - y`` and the squares of both: ``4,C,rows,columns`` float64."""
    a, b = x.double(), y.double()
    moments = torch.stack((a + b, a - b))
    return _windowed(_windowed(torch.cat((moments, moments.square())), dim=2), dim=3)


def _windowed(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Weighted sums over the window along one side, only where a whole window fits."""
    length = values.shape[dim] - MARGIN
    windowed = torch.zeros_like(values.narrow(dim, 0, length))
    for offset, weight in enumerate(taps().tolist()):
        windowed.add_(values.narrow(dim, offset, length), alpha=weight)
    return windowed


def _sleep_until_done(device: torch.device) -> None:
    """Wait without turning on the processor, as asking for the value would: ranks may hold the GPU meanwhile."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()
