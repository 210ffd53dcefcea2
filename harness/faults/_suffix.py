"""Replacement of the caption keys that enter attention, shared by bugs of the replicated caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from harness.faults._planting import instead_of, together
from harness.plugins import Worker

if TYPE_CHECKING:
    import torch


def changed_suffix_keys(worker: Worker, change: Callable[[torch.Tensor], torch.Tensor]) -> AbstractContextManager[Any]:
    """Change the caption's keys and values, and what masks them, wherever attention is exchanged.

    ``change`` is given ``B,S,heads,D``, or the mask ``B,S``, and changes dimension 1.
    """
    import torch

    from harness.spatial import attention

    num_suffix = 0

    def unite(
        stock: Any, tokens: Sequence[Sequence[torch.Tensor]], suffix: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        nonlocal num_suffix
        num_suffix = suffix[0].shape[1]
        united: list[torch.Tensor] = stock(tokens, suffix)
        if num_suffix:
            pairs = zip(tokens[1:], suffix[1:], strict=True)
            united[1:] = [torch.cat([*shards, change(own)], dim=1) for shards, own in pairs]
        return united

    def attend(stock: Any, query: Any, key: Any, value: Any, key_mask: torch.Tensor | None) -> torch.Tensor:
        if key_mask is not None and key_mask.shape[1] != key.shape[1]:
            key_mask = torch.cat([key_mask[:, :-num_suffix], change(key_mask[:, -num_suffix:])], dim=1)
        attended: torch.Tensor = stock(query, key, value, key_mask)
        return attended

    return together(
        instead_of(worker, attention, "unite", unite),
        instead_of(worker, attention, "attend", attend),
    )
