"""The modulation is split over the ranks, and each takes scales and gates out of its own part.

Put together again, the scale of attention holds channels of the other scale and of both gates.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import hooked, instead_of
from harness.plugins import Fault, Worker


class ModulationChunked(Fault):
    """Every block scales and gates by other channels, equally on all ranks."""

    name = "modulation-chunked"
    source = "https://github.com/tenstorrent/tt-forge-models/pull/783"
    cause = "modulation"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Cut the modulation into ranks before it is cut into scales and gates."""
        from harness.spatial.transformer import SpatialBlock

        def chunk(module: Any, arguments: Any, options: Any, modulation: Any) -> Any:
            return modulation.unflatten(-1, (worker.world_size, 4, -1)).transpose(-3, -2).flatten(-3)

        def forward(stock: Any, block: Any, *arguments: Any, **options: Any) -> Any:
            if not block.block.modulation:
                return stock(block, *arguments, **options)
            with hooked(block.block.adaLN_modulation, chunk):
                return stock(block, *arguments, **options)

        return instead_of(worker, SpatialBlock, "forward", forward)
