"""The caption goes around the ring with the image, and is counted once for each of its ranks.

SSIM fell to .894.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class CaptionPerRingRank(Fault):
    """Attention meets the caption as often as the ring has ranks."""

    name = "caption-per-ring-rank"
    source = "https://github.com/sgl-project/sglang/issues/33327"
    cause = "caption"
    needs = ("ring",)

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Repeat the caption's keys in the layers that see the full sequence."""
        from harness.spatial import attention

        num_suffix = 0

        def forward(
            stock: Any, layer: Any, hidden: Any, freqs: Any, lengths: Any = (), *rest: Any, **options: Any
        ) -> Any:
            nonlocal num_suffix
            full = options.get("skip_sequence_parallel_override") or (len(rest) > 1 and rest[1])
            num_suffix = hidden.shape[1] - sum(lengths) if full and lengths else 0
            return stock(layer, hidden, freqs, lengths, *rest, **options)

        def attend(stock: Any, query: Any, *keys: Any) -> Any:
            return stock(query, *(_repeated(part, num_suffix, worker.world_size) for part in keys))

        return together(
            instead_of(worker, attention.SequenceParallelAttention, "forward", forward),
            instead_of(worker, attention, "attend", attend),
        )


def _repeated(part: Any, num_suffix: int, times: int) -> Any:
    import torch

    if part is None or not num_suffix:
        return part
    return torch.cat([part, *[part[:, -num_suffix:]] * (times - 1)], dim=1)
