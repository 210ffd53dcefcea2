"""The wrapper around the exchange computes in another type: what is sent is rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from harness.faults._planting import instead_of
from harness.types import Worker


class WrapperHalfPrecision:
    """All tokens are met, a little off."""

    name: ClassVar[str] = "wrapper-half-precision"
    source: ClassVar[str] = "https://github.com/sgl-project/sglang/issues/24410"
    cause: ClassVar[str] = "exchange"
    needs: ClassVar[tuple[str, ...]] = ()

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Round query, key and value before they are traded."""
        from harness.spatial import attention

        return instead_of(worker, attention, "tokens_to_heads", _round)


def _round(stock: Any, parts: Sequence[Any], *rest: Any) -> Any:
    return stock([part.bfloat16().to(part.dtype) for part in parts], *rest)
