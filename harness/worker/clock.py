"""Time and memory of a run, measured inside the rank."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from harness.types import Device


class Clock:
    """A stopwatch that waits for the device before it reads the time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = self._last = self._now()

    def lap(self) -> float:
        """Seconds since the last lap, or since the start."""
        now = self._now()
        seconds, self._last = now - self._last, now
        return seconds

    def total(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    def _now(self) -> float:
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def reset_peak_memory(device: Device) -> None:
    """Reset the peak that :func:`peak_memory_bytes` returns."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    # Linux resets a process' high-water mark on this write; elsewhere the peak is that of the process.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: Device) -> int:
    """Peak of device memory (CUDA: allocated by torch; CPU: resident size of the process)."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
