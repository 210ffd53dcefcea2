"""The replicated caption is put in front of the tokens, and the output is read as if it stood behind them.

After nine steps the mean error was 7 of 255.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker


class CaptionFirst(Fault):
    """Every token takes the output of another one."""

    name = "caption-first"
    source = "https://github.com/sgl-project/sglang/issues/33923"
    cause = "exchange"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Put the caption first."""
        from harness.spatial import attention

        return instead_of(worker, attention, "unite", _caption_first)


def _caption_first(stock: Any, tokens: Any, suffix: Any) -> Any:
    last = [shards[-1] for shards in tokens]
    return stock([[own, *shards[:-1]] for own, shards in zip(suffix, tokens, strict=True)], last)
