"""Explanation of a failing comparison, recorded by a second draw with a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.comparison import Relation
from harness.types.values import SCHEMA


@dataclass(frozen=True)
class LedgerLine:
    """Which tokens one rank meets in one attention call, for one picture of the batch: counts of keys.

    A token is told by its key, which is compared with those of the reference. One with the right value
    and another key stands at a wrong position.
    """

    step: int
    module: str
    rank: int
    item: int
    image_tokens: int
    """Image tokens that the reference meets; the rest likewise."""
    image_met: int
    image_missing: int
    image_duplicated: int
    pads: int
    pads_met: int
    caption_tokens: int
    caption_met: int
    caption_missing: int
    caption_duplicated: int
    image_copied: int = 0
    """Met at their place, and once more at another."""
    masked_met: int = 0
    """Met, though the reference masks them."""
    masked_away: int = 0
    """Present and masked, though the reference meets them."""
    wrong_position: int = 0
    foreign: int = 0
    """Like nothing that the reference meets."""
    doubtful: int = 0
    """Near a token of the reference, and not near enough."""
    sentence: str = ""

    @property
    def clean(self) -> bool:
        """Everything is met once, and nothing else."""
        whole = (self.image_met, self.pads_met, self.caption_met) == (
            self.image_tokens,
            self.pads,
            self.caption_tokens,
        )
        again = self.image_duplicated + self.image_copied + self.caption_duplicated
        masks = self.masked_met + self.masked_away
        return whole and not again + masks + self.wrong_position + self.foreign + self.doubtful


@dataclass(frozen=True)
class BlockError:
    """Error of one block's output against the reference at one step, over all ranks."""

    step: int
    module: str
    error: float | None
    """Largest relative error of a token: distance over the root mean square of the block's tokens; ``None``
    where a value is not finite."""
    median: float | None
    """Of all tokens."""
    rank: int
    """Where the largest lies."""
    box_px: tuple[int, int, int, int] | None = None
    """Box around the image tokens beyond the tolerance."""
    tokens: int = 0
    """Tokens beyond the tolerance."""


@dataclass(frozen=True)
class Displaced:
    """A rank's shard of the picture that was found elsewhere in it."""

    rank: int
    at_px: int
    """Along the axis of the cut."""
    origin_px: int
    """Where it belongs."""


@dataclass(frozen=True)
class Explanation:
    """Result of drawing a failing comparison again with a probe (``explained/*.json`` of a run)."""

    relation: Relation
    reference: str
    candidate: str
    ledger: tuple[LedgerLine, ...] = ()
    blocks: tuple[BlockError, ...] = ()
    """In the order in which they are computed."""
    tolerance: float = 0.0
    """What blocks are held to."""
    token_errors: tuple[float | None, ...] = ()
    """Of every image token in the first block beyond the tolerance, row by row; the worst of a batch."""
    redrawn_db: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """Role to latents PSNR between the run and its repetition; ``None`` where equal."""
    out_of_place: int = 0
    """Tokens that a rank has embedded before the first block, and that belong elsewhere in the picture."""
    displaced: tuple[Displaced, ...] = ()
    times_off: tuple[int, ...] = ()
    """Steps at which the time embedding is another than the reference's."""
    weights_off: tuple[str, ...] = ()
    """Rank and module whose weights are others than those of the first rank, or pad tokens than the reference's."""
    batches: tuple[int, int] = (0, 0)
    """Pictures that one forward call computes in the reference and in the candidate."""
    caption_keys: tuple[int, int] = (0, 0)
    """Keys of the first attention over the caption, pads included, likewise."""
    left_out: tuple[str, ...] = ()
    """What was not recorded or could not be compared, and why."""
    schema: int = SCHEMA

    @property
    def first_divergence(self) -> BlockError | None:
        """The first block whose output leaves the tolerance."""
        return next((b for b in self.blocks if b.error is None or b.error > self.tolerance), None)
