"""A shard that is padded already is padded once more: every rank brings twice its pads to attention.

Pads in attention that should not be there showed as a haze over the picture.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import ShardPlan


class PadsDoubled(Fault):
    """Twice the pads, all of them attended."""

    name = "pads-doubled"
    source = "https://github.com/sgl-project/sglang/issues/30107"
    cause = "pads"
    needs = ("pads: as on one device",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Lengthen every rank's sequence by its pads."""
        from harness.spatial.transformer import SpatialTransformer

        return instead_of(worker, SpatialTransformer, "prepare", _pad_again)


def _pad_again(stock: Any, transformer: Any, captions: Any, plan: ShardPlan) -> Any:
    lengths = [2 * length - own for length, own in zip(plan.sequence_lengths, plan.local_tokens, strict=True)]
    return stock(transformer, captions, replace(plan, sequence_lengths=tuple(lengths)))
