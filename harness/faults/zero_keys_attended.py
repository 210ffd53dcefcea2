"""A caption that does not divide by the ranks is filled up with zeros, which attention then meets.

Found in release 0.7.0 by running it: with two ranks everything divides, with three the picture is off.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._suffix import changed_suffix_keys
from harness.plugins import Fault, Worker


class ZeroKeysAttended(Fault):
    """A key of zeros beside the caption's own."""

    name = "zero-keys-attended"
    source = "https://github.com/xdit-project/xDiT"
    cause = "pads"
    needs = ("ranks: 3",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Append zeros to the caption's keys and values until they divide."""
        import torch

        def fill(part: torch.Tensor) -> torch.Tensor:
            zeros = part.new_full(
                (len(part), -part.shape[1] % worker.world_size, *part.shape[2:]), part.dtype == torch.bool
            )
            return torch.cat([part, zeros], dim=1)

        return changed_suffix_keys(worker, fill)
