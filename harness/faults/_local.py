"""Attention that meets the tokens of its own rank alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attend_locally(
    stock: Callable[..., Any],
    layer: Any,
    hidden: Any,
    freqs: Any,
    lengths: Any = (),
    key_mask: Any = None,
    *rest: Any,
    **options: Any,
) -> Any:
    """Attend as where nothing is exchanged; of the mask of all keys the caption's end is kept."""
    own_mask = None if key_mask is None else key_mask[:, -hidden.shape[1] :]
    return stock(layer, hidden, freqs, key_mask=own_mask, skip_sequence_parallel_override=True)
