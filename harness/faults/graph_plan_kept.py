"""Recordings are found by the number of tokens, and keep the plan and the positions they were recorded with.

The thread tells of pictures with as many tokens on another grid: only the tokens were written anew.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class GraphPlanKept(Fault):
    """A later request is computed on the grid of the first one."""

    name = "graph-plan-kept"
    source = "https://github.com/LibreYOLO/libreyolo/pull/714"
    cause = "position"
    needs = ("graph", "second request", "orientation: portrait")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Find recordings by tokens, write tokens alone, and lay them out as the recorded plan has them."""
        from harness.spatial import steps

        return together(
            instead_of(worker, steps, "key_of", _by_tokens),
            instead_of(worker, steps.Recording, "take", _keep_positions),
            instead_of(worker, steps.Recording, "__call__", _as_tokens),
        )


def _by_tokens(stock: Any, latents: Any, conditions: Any) -> Any:
    return conditions.plan.sequence_lengths, latents.numel(), conditions.caption.shape


def _keep_positions(stock: Any, recording: Any, conditions: Any) -> None:
    kept = recording.conditions
    stock(recording, replace(conditions, image_freqs=kept.image_freqs, freqs=kept.freqs))


def _as_tokens(stock: Any, recording: Any, latents: Any, timestep: Any) -> Any:
    from harness.spatial.tokens import patchify, unpatchify

    recorded = recording.latents.shape
    velocity = stock(recording, unpatchify(patchify(latents), recorded), timestep)
    return unpatchify(patchify(velocity), latents.shape)
