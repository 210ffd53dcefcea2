"""Tokens are placed by the rank within the Ulysses group instead of that within the whole one.

With a ring, ranks of different rows of the grid claim to hold the same part, until all tokens are gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class PositionsOfWrongGroup(Fault):
    """Wrong positions in the layers before the ring gathers all tokens."""

    name = "positions-of-wrong-group"
    source = "https://github.com/NVIDIA/Megatron-LM/issues/6821"
    cause = "position"
    needs = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Place this rank's tokens by its number in the Ulysses group."""
        from harness.spatial import transformer

        number = 0

        def prepare(stock: Any, model: Any, *arguments: Any) -> Any:
            nonlocal number
            number = model.group.ulysses.rank
            return stock(model, *arguments)

        def place(stock: Any, plan: Any, ranks: Sequence[int], frames: Any) -> Any:
            return stock(plan, [number] if len(ranks) == 1 else ranks, frames)

        return together(
            instead_of(worker, transformer.SpatialTransformer, "prepare", prepare),
            instead_of(worker, transformer, "image_positions", place),
        )
