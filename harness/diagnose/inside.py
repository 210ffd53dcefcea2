"""From what a probed run showed to the cause: each rule with the evidence it rests on.

The rules follow the way of the data, and the first that applies names the cause: what comes later is a
consequence. Attention is asked before the output of the block that it stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.diagnose.divergence import EMBEDDER
from harness.diagnose.token_ledger import module_key
from harness.types import BlockError, Explanation, LedgerLine

REPEAT_MARGIN_DB = 10.0
"""A repetition that comes as near to the first draw as this beyond the error in question explains it."""

CACHED_FROM_LAYER = 1
"""Caches compute the first main layer at every step, and decide by it."""

SHOWN_LINES = 6
"""Lines of the ledger that are quoted as evidence; the report has them all."""


@dataclass(frozen=True)
class Finding:
    """A cause, and what led to it."""

    cause: str | None
    evidence: tuple[str, ...] = ()
    seen: str = ""
    """The one line that says most of what was seen inside."""

    @property
    def headline(self) -> str:
        """A sentence to end a verdict with; nothing where nothing was seen."""
        return f" Cause: {self.cause} ({self.seen})." if self.cause and self.seen else ""


def of_explanation(
    explanation: Explanation, error_db: float | None = None, cached: Sequence[bool] = (), split: bool = True
) -> Finding:
    """Name the cause of a difference from what the probe showed; ``cause`` is ``None`` where nothing tells.

    Parameters
    ----------
    explanation
        Ledger, traces and repetition.
    error_db
        Latents PSNR of the comparison in question.
    cached
        For each step, whether a cache served it.
    split
        Whether several ranks drew the candidate.
    """
    first = explanation.first_divergence
    unclean = first_unclean(explanation.ledger)
    ledger, trace = _ledger_evidence(explanation, unclean), _divergence_evidence(explanation)
    evidence = (*ledger, *trace, *_others(explanation))
    attention = bool(unclean) and (first is None or _place(unclean[0]) <= _place(first))
    place = unclean[0] if attention else first
    if _repetition_explains(explanation, error_db):
        return Finding("non-determinism", evidence, evidence[-1])
    if place is None:
        if not split or not explanation.blocks:
            return Finding(None, evidence)
        said = "every block is right on every rank, and the latents put together from them are not"
        return Finding("cut/gather", (*evidence, said), said)
    if first is not None and first.step == 1 and first.module.startswith(EMBEDDER):
        return Finding("cut/gather" if explanation.out_of_place else "noise", evidence, trace[0])
    seen = ledger[0] if attention else trace[0]
    if cached and _under_the_cache(place, cached):
        return Finding("cache", (*evidence, "blocks that the cache never serves are right"), seen)
    return Finding(_of_attention(unclean, split) if attention else _of_block(place, split), evidence, seen)


def first_unclean(ledger: Sequence[LedgerLine]) -> list[LedgerLine]:
    """The lines of the first attention call in which a rank does not meet what it should."""
    first = next((line for line in ledger if not line.clean), None)
    if first is None:
        return []
    return [line for line in ledger if (line.step, line.module) == (first.step, first.module) and not line.clean]


def _place(of: LedgerLine | BlockError) -> tuple[int, tuple[int, int]]:
    return of.step, module_key(of.module)


def _under_the_cache(place: LedgerLine | BlockError, cached: Sequence[bool]) -> bool:
    """Whether trouble begins in a step that a cache served, or in the layers that it may serve."""
    served = place.step <= len(cached) and cached[place.step - 1]
    return served or (place.module.startswith("layers") and module_key(place.module)[1] >= CACHED_FROM_LAYER)


def _of_attention(lines: Sequence[LedgerLine], split: bool) -> str | None:
    """Cause of a call in which not everything is met once."""
    masked = any(line.masked_met or line.masked_away for line in lines)
    if masked:
        return "mask"
    if any(line.wrong_position > line.foreign for line in lines):
        return "position"
    if lines[0].module.startswith("context"):
        return "caption"
    image_whole = all(line.image_met == line.image_tokens and not line.image_duplicated for line in lines)
    caption_whole = all(line.caption_met == line.caption_tokens and not line.caption_duplicated for line in lines)
    if split and image_whole and any(line.image_copied for line in lines):
        return "cut/gather"  # more was cut off the picture than the shard; one device cuts nothing off
    if image_whole and not caption_whole:
        return "caption"
    pads_whole = all(line.pads_met == line.pads for line in lines)
    surplus = max(line.foreign for line in lines)
    if image_whole and (not pads_whole or 0 < surplus < lines[0].image_tokens):
        return "pads"  # another number, or something else in their place
    return "exchange" if split else None


def _of_block(divergence: LedgerLine | BlockError, split: bool) -> str | None:
    """Cause of a block whose attention met the right keys, and whose output is wrong."""
    assert isinstance(divergence, BlockError)
    if divergence.module.startswith(EMBEDDER):
        return "noise"
    if divergence.module.startswith("context"):
        return "caption"
    if not split:
        return None
    if divergence.module.startswith("all_final_layer"):
        return "cut/gather"
    if divergence.module.startswith("layers") and divergence.tokens and divergence.box_px is None:
        return "caption"
    return "exchange"


def _repetition_explains(explanation: Explanation, error_db: float | None) -> bool:
    repeated = explanation.redrawn_db.get("candidate")
    return repeated is not None and error_db is not None and repeated <= error_db + REPEAT_MARGIN_DB


# ---------------------------------------------------------------- evidence, line by line


def _ledger_evidence(explanation: Explanation, unclean: Sequence[LedgerLine]) -> list[str]:
    if not explanation.ledger:
        return []
    if not unclean:
        calls = dict.fromkeys((line.step, line.module) for line in explanation.ledger)
        return [f"attention: in {len(calls)} calls every rank meets every token once, at its place"]
    several = len({line.item for line in explanation.ledger}) > 1
    lines = [
        f"step {line.step}, {line.module}{f', picture {line.item + 1}' if several else ''}: {line.sentence}"
        for line in unclean[:SHOWN_LINES]
    ]
    more = len(unclean) - SHOWN_LINES
    return [*lines, f"and {more} more such lines"] if more > 0 else lines


def _divergence_evidence(explanation: Explanation) -> list[str]:
    first = explanation.first_divergence
    if not explanation.blocks:
        return []
    if first is None:
        return [f"blocks: all {len(explanation.blocks)} outputs stay within {explanation.tolerance:g}"]
    size = "values that are not finite" if first.error is None else f"relative error {first.error:.2g}"
    box = "in the caption" if first.box_px is None else "in the box from ({}, {}) to ({}, {}) px".format(*first.box_px)
    return [
        f"first divergence: step {first.step}, {first.module}, worst on rank {first.rank}, {box}: {size} in "
        f"{first.tokens} tokens, tolerance {explanation.tolerance:g}"
    ]


def _others(explanation: Explanation) -> list[str]:
    lines = []
    if explanation.out_of_place:
        lines.append(f"{explanation.out_of_place} tokens were cut from another place of the picture")
    lines += [
        f"the shard of rank {part.rank} belongs at {part.origin_px} px and stands at {part.at_px} px"
        for part in explanation.displaced
    ]
    for role, repeated in explanation.redrawn_db.items():
        same = "equal to the last bit" if repeated is None else f"{repeated:.1f} dB from the first draw"
        lines.append(f"drawn once more, the {role} is {same}")
    return lines
