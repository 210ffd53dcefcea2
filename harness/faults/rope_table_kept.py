"""The table of positions is kept by token count and taken again for a request with as many tokens on another grid.

The first request is right; only the second shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import ShardPlan


class RopeTableKept(Fault):
    """Rotary positions of an earlier request are used again."""

    name = "rope-table-kept"
    source = "https://github.com/sgl-project/sglang/blob/main/python/sglang/multimodal_gen/test/server/gpu_cases.py"
    cause = "position"
    needs = ("second request", "orientation: portrait")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Keep the positions of every token count over requests."""
        from harness.spatial import transformer

        return instead_of(worker, transformer, "image_positions", _keep)


_kept: dict[tuple[int, ...], Any] = {}


def _keep(stock: Any, plan: ShardPlan, ranks: Sequence[int], frames: Sequence[int]) -> Any:
    num_tokens = sum(plan.sequence_lengths[rank] for rank in ranks)
    return _kept.setdefault((num_tokens, *frames), stock(plan, ranks, frames))
