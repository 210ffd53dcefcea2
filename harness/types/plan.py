"""Shard plans: the cut of a picture's token grid, and the choice between two cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.types.values import Layout


@dataclass(frozen=True)
class ShardPlan:
    """A cut of the token grid along one axis; made once per request, travels with it.

    ``shard_tokens`` counts tokens along the axis on each rank, ``local_tokens`` all image tokens of each
    rank, ``sequence_lengths`` what each rank brings to attention, its pads included. In layout ``aligned``
    that is ``sequence_target`` everywhere; in ``exact`` the last rank alone carries pads, as many as one
    device would have.
    """

    axis: Literal["h", "w"]
    feasible: bool
    reason: str
    shard_tokens: tuple[int, ...]
    local_tokens: tuple[int, ...]
    sequence_target: int
    pad_tokens: int
    surplus_pad_tokens: int
    sequence_lengths: tuple[int, ...]
    layout: Layout = "aligned"

    @property
    def origins(self) -> tuple[int, ...]:
        """First token of each rank along the axis."""
        return tuple(sum(self.shard_tokens[:rank]) for rank in range(len(self.shard_tokens)))

    def grid(self, rank: int) -> tuple[int, int]:
        """Rows and columns of tokens that a rank holds."""
        along = self.shard_tokens[rank]
        across = self.local_tokens[rank] // along if along else 0
        return (along, across) if self.axis == "h" else (across, along)


@dataclass(frozen=True)
class Pads:
    """Pad tokens of the image sequence, as an engine declares them that cuts no picture."""

    total: int
    single: int
    """Those of one device."""

    @property
    def surplus(self) -> int:
        """Pads beyond those of one device."""
        return self.total - self.single


@dataclass(frozen=True)
class AxisChoice:
    """Both cuts of one size, and which of them wins by which rule."""

    size: str
    tokens_h: int
    tokens_w: int
    ulysses: int
    single_pad_tokens: int
    chosen_axis: Literal["h", "w"] | None
    rule: str
    axes: Mapping[str, ShardPlan]

    @property
    def chosen(self) -> ShardPlan | None:
        """The winning cut; ``None`` if neither axis is feasible."""
        return self.axes[self.chosen_axis] if self.chosen_axis else None
