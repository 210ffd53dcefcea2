"""The exchange hands out a buffer of values that was filled before: the keys are of this step, the values of the last.

The real one kept the chunks of an earlier iteration of the ring; a whole-step delay stands for it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class StaleValue(Fault):
    """Every token is met by its right key, and has the value of the step before."""

    name = "stale-value"
    source = "https://github.com/NVIDIA-NeMo/Automodel/pull/3157"
    cause = "exchange"
    needs = ("steps: more than 1",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Exchange each layer's values of the step before."""
        from harness.spatial.attention import SequenceParallelAttention

        kept: dict[int, Any] = {}

        def exchange(stock: Any, layer: Any, parts: Any, *rest: Any) -> Any:
            query, key, value = parts
            former = kept.get(id(layer), value)
            kept[id(layer)] = value
            return stock(layer, [query, key, former], *rest)

        return instead_of(worker, SequenceParallelAttention, "_exchange_and_attend", exchange)
