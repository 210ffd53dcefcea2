"""Keys and values that enter torch's scaled dot-product attention, recorded for one draw.

Whatever an engine does to bring tokens together, in the end a rank's queries meet some keys here. What
those keys are says which tokens the rank sees; nothing need be known of the engine's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

from harness.worker.probe.outputs import Trace

FIRST_BLOCKS = ("noise_refiner.0", "context_refiner.0", "layers.0")
"""Blocks whose attention is always recorded: the first over image tokens, over the caption, and over both."""

MAX_BYTES = 512 << 20
"""Kept of one draw on one rank; what comes after is left out, and said."""

MAX_BYTES_OF_OTHERS = 16 << 20
"""Other blocks' attention at the first step is recorded where a call is no larger than this."""


class Ledger:
    """Keys, values and masks of the recorded calls, ``(what, step, module)`` to a list of tensors.

    ``key`` and ``value`` are ``B,heads,S,head_dim`` float32, ``mask`` is ``B,S``: true where some query meets
    the key. A block that attends in several calls, as a ring does, has one entry for each.
    """

    def __init__(self, trace: Trace, steps: frozenset[int]) -> None:
        self.calls: dict[tuple[str, int, str], list[torch.Tensor]] = {}
        self.left_out: list[str] = []
        self._trace = trace
        self._steps = steps
        self._bytes = 0

    def note(self, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Keep one call, if it is one of those to be recorded."""
        step, module = self._trace.step, self._trace.module
        size = 4 * (key.numel() + value.numel())
        if module is None or step not in self._steps:
            return
        if module not in FIRST_BLOCKS and (step > 1 or size > MAX_BYTES_OF_OTHERS):
            return
        self._bytes += size
        if self._bytes > MAX_BYTES:
            self.left_out.append(f"keys of {module} at step {step}: more than {MAX_BYTES >> 20} MiB on this rank")
            return
        found = {"key": _plain(key), "value": _plain(value), "mask": met_by_any_query(mask, key)}
        for what, tensor in found.items():
            self.calls.setdefault((what, step, module), []).append(tensor)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything recorded, ``what/step/module`` to a tensor; the calls of one block one after the other."""
        return {
            f"{what}/{step}/{module}": torch.cat(calls, dim=1 if what == "mask" else 2)
            for (what, step, module), calls in self.calls.items()
        }


def met_by_any_query(mask: torch.Tensor | None, key: torch.Tensor) -> torch.Tensor:
    """Which keys a mask lets through to at least one query, in any head; ``B,S``, all without a mask.

    Parameters
    ----------
    mask
        As scaled dot-product attention takes it: broadcastable to ``B,heads,Q,S``, bool or additive.
    key
        ``B,heads,S,head_dim``.
    """
    batch, _, length, _ = key.shape
    if mask is None:
        return torch.ones(batch, length, dtype=torch.bool)
    attended = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    while attended.ndim < 4:
        attended = attended.unsqueeze(0)
    return attended.any(dim=2).any(dim=1).expand(batch, length).cpu().contiguous()


@contextmanager
def recording(ledger: Ledger) -> Iterator[None]:
    """Let ``ledger`` see every call for the length of the context; the call itself is the stock one."""
    stock = functional.scaled_dot_product_attention

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        *arguments: Any,
        **options: Any,
    ) -> torch.Tensor:
        ledger.note(key, value, attn_mask)
        return stock(query, key, value, attn_mask, *arguments, **options)

    with mock.patch.object(functional, "scaled_dot_product_attention", attention):
        yield


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu().contiguous().clone()
