"""From what a probed run showed to the cause: each rule with the evidence it rests on.

The rules follow the way of the data, and the first that applies names the cause: what comes later is a
consequence. Attention is asked before the output of the block that it stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.diagnose.divergence import EMBEDDER
from harness.diagnose.inputs import CAPTION_BLOCK
from harness.diagnose.token_ledger import FIRST_BLOCK, module_key
from harness.types import BlockError, Explanation, Judgement, LedgerLine

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
    explanation: Explanation,
    error_db: float | None = None,
    cached: Sequence[bool] = (),
    split: bool = True,
    guided: bool = False,
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
    guided
        Whether predictions with and without the prompt are combined.
    """
    first = explanation.first_divergence
    unclean = first_unclean(explanation.ledger)
    ledger, trace = _ledger_evidence(explanation, unclean), _divergence_evidence(explanation)
    evidence = (*ledger, *trace, *_others(explanation))
    attention = bool(unclean) and (first is None or _place(unclean[0]) <= _place(first))
    place = unclean[0] if attention else first
    if _repetition_explains(explanation, error_db):
        return Finding("non-determinism", evidence, evidence[-1])
    if (given := _of_inputs(explanation, unclean, place)) is not None:
        return Finding(given[0], (*evidence, given[1]), given[1])
    if place is None and not explanation.displaced and split:
        place = _slight(explanation)
        if place is not None:
            seen = f"step 1, {place.module}: relative error {place.error:.2g}, beyond what rounding reaches so early"
            return Finding(_of_block(place, split), (*evidence, seen), seen)
    if place is None:
        if not split or not explanation.blocks:
            return Finding(None, evidence)
        said = "every block is right on every rank, and the latents put together from them are not"
        return Finding("cut/gather", (*evidence, said), said)
    if first is not None and first.step == 1 and first.module.startswith(EMBEDDER):
        return Finding("cut/gather" if explanation.out_of_place else "noise", evidence, trace[0])
    seen = ledger[0] if attention else trace[0]
    if not attention and first is not None and first.module.startswith(EMBEDDER) and not explanation.out_of_place:
        return _of_update(first, cached, guided, evidence, seen)
    if attention and _modulated_wrongly(explanation, unclean):
        return Finding("modulation", evidence, seen)
    if cached and _under_the_cache(place, cached):
        return Finding("cache", (*evidence, "blocks that the cache never serves are right"), seen)
    return Finding(_of_attention(unclean, split) if attention else _of_block(place, split), evidence, seen)


def contradiction(explanation: Explanation | None) -> Judgement | None:
    """Judge a passing comparison by the tokens that attention meets: what is missing, foreign or masked fails it.

    Only at the first step, where both sides are given the same: later ones carry the rounding of those before. The
    first block over the caption is given the caption alone, so that there a doubtful key fails it as well.
    """
    if explanation is None:
        return None
    for line in explanation.ledger:
        lost = line.image_missing + line.caption_missing + line.masked_away
        lost += line.doubtful if line.module == CAPTION_BLOCK else 0
        if line.step == 1 and lost + line.masked_met + line.foreign:
            said = f"its figures pass, and step {line.step}, {line.module}: {line.sentence}"
            return Judgement(explanation.relation, False, said)
    return None


def first_unclean(ledger: Sequence[LedgerLine]) -> list[LedgerLine]:
    """The lines of the first attention call in which a rank does not meet what it should."""
    first = next((line for line in ledger if not line.clean), None)
    if first is None:
        return []
    return [line for line in ledger if (line.step, line.module) == (first.step, first.module) and not line.clean]


def _of_inputs(
    explanation: Explanation, unclean: Sequence[LedgerLine], place: LedgerLine | BlockError | None
) -> tuple[str, str] | None:
    """Cause and evidence where blocks are given something else than image tokens that is wrong."""
    if explanation.weights_off:
        return "weights", "other weights at " + ", ".join(explanation.weights_off[:SHOWN_LINES])
    expected, found = explanation.batches
    if expected and found > expected:
        return "guidance", f"a forward call computes {found} predictions instead of {expected}"
    if explanation.times_off and (place is None or explanation.times_off[0] <= place.step):
        steps = ", ".join(map(str, explanation.times_off))
        return "schedule", f"the model is told another time than its reference is, at step {steps}"
    expected, found = explanation.caption_keys
    if expected and found > expected:
        moved = any(line.wrong_position for line in unclean)
        return "caption" if moved else "pads", f"the caption has {found} keys instead of {expected}, pads included"
    return None


def _slight(explanation: Explanation) -> BlockError | None:
    """Return the first block of the first step beyond a sixth of the tolerance, which no rounding reaches there."""
    early = (block for block in explanation.blocks if block.step == 1)
    return next((block for block in early if (block.error or 0.0) > explanation.tolerance / 6), None)


def _of_update(
    first: BlockError, cached: Sequence[bool], guided: bool, evidence: tuple[str, ...], seen: str
) -> Finding:
    """Cause of a step that begins with other latents, though the blocks of the step before it are right."""
    if any(cached[: first.step - 1]):
        return Finding("cache", (*evidence, "blocks of the steps that were computed are right"), seen)
    return Finding("guidance" if guided else "noise", evidence, seen)


def _modulated_wrongly(explanation: Explanation, unclean: Sequence[LedgerLine]) -> bool:
    """Whether no key of the first block is known, nor any value, though what it was given is right."""
    embedded = [block for block in explanation.blocks if block.step == 1 and block.module.startswith(EMBEDDER)]
    right = all(block.error is not None and block.error <= explanation.tolerance for block in embedded)
    unknown = all(
        not line.image_met + line.wrong_position + line.image_copied
        and line.foreign + line.doubtful >= line.image_tokens
        for line in unclean
    )
    ranks = {line.rank for line in explanation.ledger if line.module == FIRST_BLOCK}
    return (
        bool(embedded)
        and right
        and unknown
        and unclean[0].module == FIRST_BLOCK
        and {line.rank for line in unclean} == ranks
    )


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
