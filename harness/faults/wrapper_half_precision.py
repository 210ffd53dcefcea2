"""The wrapper around the exchange computes in another type: what is sent is rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class WrapperHalfPrecision(Fault):
    """All tokens are met, a little off."""

    name = "wrapper-half-precision"
    source = "https://github.com/sgl-project/sglang/issues/24410"
    cause = "exchange"
    needs = ("dtype: float32",)  # in bfloat16 there is nothing to round

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Round query, key and value before they are traded."""
        from harness.spatial import attention

        return instead_of(worker, attention, "tokens_to_heads", _round)


def _round(stock: Any, parts: Sequence[Any], *rest: Any) -> Any:
    return stock([part.bfloat16().to(part.dtype) for part in parts], *rest)
