"""Caption and image positions are concatenated before they are cut, so that each rank reads those of other tokens.

It drew coloured blobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from harness.faults._planting import instead_of
from harness.plugins import Fault, Worker
from harness.types import ShardPlan


class RopeBeforeShard(Fault):
    """The first rank's image tokens claim to be the caption."""

    name = "rope-before-shard"
    source = "https://github.com/sgl-project/sglang/issues/19454"
    cause = "position"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Cut one table of caption and image by the ranks' lengths."""
        from harness.spatial import transformer

        instead = partial(_cut_from_one_table, worker)
        return instead_of(worker, transformer, "image_positions", instead)


def _cut_from_one_table(
    worker: Worker, stock: Any, plan: ShardPlan, ranks: Sequence[int], frames: Sequence[int]
) -> Any:
    import torch

    from harness.spatial.tokens import caption_positions

    image = stock(plan, range(worker.world_size), frames)
    tables = [
        torch.cat([caption_positions(frame - 1), own])  # an image stands one frame behind its caption
        for frame, own in zip(frames, image, strict=True)
    ]
    start = sum(plan.sequence_lengths[: ranks[0]])
    return torch.stack([table[start : start + sum(plan.sequence_lengths[rank] for rank in ranks)] for table in tables])
