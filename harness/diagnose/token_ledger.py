"""Token ledger: counts of the keys that each rank's queries meet in attention.

Each key that a rank's queries meet is matched with its nearest key of the reference's same call, over the
heads that the rank holds. Equal tokens at equal positions have equal keys up to round-off, and any other
key is far away, so the match is an identification. Which token a key of the reference is follows from the
reference's own layout: image tokens row by row, image pads, caption.

Pads are one token many times over and are counted as a class. Values are not rotated: a token with the
value of one in the reference and not its key stands at a wrong position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.diagnose.records import Array, Call, Probe
from harness.types import DType, LedgerLine

MET = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 3e-3}
"""Relative distance within which a key is the same key. Healthy keys differ by round-off alone."""

FOREIGN = 0.5
"""Relative distance from which on a key is another one; what lies between is doubtful and said so."""

LATE = 0.2
"""Behind the first step a token differs by the rounding of those before: it is met within this distance of its key,
where its value is nearest to the same token's."""

HEAD_SAMPLE = 64
"""Keys from which is told which of the reference's heads a rank holds."""

CHUNK = 1024
"""Keys matched at a time, so that the table of distances stays small."""

IMAGE, PAD, CAPTION, MASKED = range(4)
FIRST_BLOCK = "noise_refiner.0"
"""Its attention is over the image alone, so it tells how many pads there are."""

MODULE_ORDER = ("all_x_embedder", "noise_refiner", "context_refiner", "layers", "all_final_layer")


@dataclass(frozen=True)
class Layout:
    """Classes of the keys in one attention call of the reference, for one picture."""

    classes: Array
    """``S``: ``IMAGE``, ``PAD``, ``CAPTION`` or ``MASKED`` for each key."""

    def num(self, kind: int) -> int:
        """Keys of one class."""
        return int((self.classes == kind).sum())


def layout_of(module: str, mask: Array, image_tokens: int, image_pads: int) -> Layout:
    """Name the keys of a reference call: image tokens, image pads, caption (its own pads count as caption).

    Parameters
    ----------
    module
        The block: ``noise_refiner`` sees the image, ``context_refiner`` the caption, ``layers`` both.
    mask
        ``S``, true for keys that are met.
    image_tokens, image_pads
        Of the reference.
    """
    classes = np.full(len(mask), CAPTION)
    if not module.startswith("context"):
        classes[:image_tokens] = IMAGE
        classes[image_tokens : image_tokens + image_pads] = PAD
    classes[~mask] = MASKED
    return Layout(classes)


def ledger(
    reference: Probe, candidate: Sequence[Probe], image_tokens: int, dtype: DType = "float32"
) -> tuple[LedgerLine, ...]:
    """Count what every rank of the candidate meets, call by call in the order of computation.

    Parameters
    ----------
    reference
        The one rank of the reference run.
    candidate
        All ranks of the candidate.
    image_tokens
        Of one picture, without pads.
    dtype
        Of the weights; decides what counts as equal.
    """
    lines = []
    calls = sorted(reference.keys, key=lambda call: (call[0], module_key(call[1])))
    for call in calls:
        pads = _image_pads(reference, call[0], image_tokens)
        for rank, probe in enumerate(candidate):
            if call in probe.keys and probe.keys[call].shape[0] == reference.keys[call].shape[0]:
                lines += _lines(reference, probe, call, rank, image_tokens, pads, MET[dtype])
    return tuple(lines)


def module_key(module: str) -> tuple[int, int]:
    """Place of a block in the order of computation."""
    name, _, number = module.partition(".")
    place = MODULE_ORDER.index(name) if name in MODULE_ORDER else len(MODULE_ORDER)
    return place, int(number) if number.isdigit() else 0


def telling(lines: Sequence[LedgerLine]) -> tuple[LedgerLine, ...]:
    """The lines worth keeping: those of each first block, and of the first call that is not clean.

    Behind that one nothing is clean any more, and that is no news.
    """
    first = next((line for line in lines if not line.clean), None)
    unclean = (first.step, first.module) if first else None
    return tuple(line for line in lines if line.module.endswith(".0") or (line.step, line.module) == unclean)


def _image_pads(reference: Probe, step: int, image_tokens: int) -> int:
    refined = reference.keys.get((step, FIRST_BLOCK))
    return 0 if refined is None else refined.shape[2] - image_tokens


def _lines(
    reference: Probe, probe: Probe, call: Call, rank: int, tokens: int, pads: int, met: float
) -> list[LedgerLine]:
    keys, values = reference.keys[call], reference.values[call]
    heads = _heads_of(probe, reference, call)
    lines = []
    for item in range(len(keys)):
        layout = layout_of(call[1], reference.masks[call][item], tokens, pads)
        by_key = nearest(_flat(probe.keys[call][item]), _flat(keys[item, heads]))
        by_value = nearest(_flat(probe.values[call][item]), _flat(values[item, heads]))
        counts = _count(layout, by_key, by_value, probe.masks[call][item], met, call[0] > 1)
        line = LedgerLine(call[0], call[1], rank, item, **counts)
        lines.append(replace(line, sentence=sentence_of(line)))
    return lines


def _flat(part: Array) -> Array:
    """``heads,S,D`` to ``S,heads*D``."""
    return np.moveaxis(part, 0, 1).reshape(part.shape[1], -1)


def _heads_of(probe: Probe, reference: Probe, call: Call) -> slice:
    """The reference's heads that a rank holds: those whose keys or values lie nearest to its own."""
    held, known = probe.keys[call].shape[1], reference.keys[call].shape[1]
    if held >= known:
        return slice(0, known)
    best, found = np.inf, slice(0, held)
    for start in range(known - held + 1):
        heads = slice(start, start + held)
        for mine, theirs in ((probe.keys[call], reference.keys[call]), (probe.values[call], reference.values[call])):
            sample = _flat(mine[0])
            sample = sample[:: max(1, len(sample) // HEAD_SAMPLE)]
            distance = float(np.median(nearest(sample, _flat(theirs[0, heads]))[1]))
            if distance < best:
                best, found = distance, heads
    return found


def nearest(rows: Array, reference: Array) -> tuple[Array, Array]:
    """Match each row with its nearest of ``reference``.

    Returns
    -------
    tuple of arrays
        Index, and distance relative to the longer of the two; infinite where a row is not finite, or holds
        another number of values.
    """
    index = np.zeros(len(rows), dtype=np.intp)
    distance = np.full(len(rows), np.inf)
    if not len(reference) or rows.shape[1] != reference.shape[1]:
        return index, distance
    known = reference.astype(np.float64)
    squares = np.square(known).sum(axis=1)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK].astype(np.float64)
        finite = np.isfinite(chunk).all(axis=1)
        chunk[~finite] = 0
        best = np.argmin(squares - 2 * chunk @ known.T, axis=1)
        gap = np.linalg.norm(chunk - known[best], axis=1)
        longer = np.maximum(np.linalg.norm(chunk, axis=1), np.sqrt(squares[best]))
        relative = np.divide(gap, longer, out=np.zeros_like(gap), where=longer > 0)
        index[start : start + CHUNK] = best
        distance[start : start + CHUNK] = np.where(finite, relative, np.inf)
    return index, distance


def _count(
    layout: Layout, by_key: tuple[Array, Array], by_value: tuple[Array, Array], mask: Array, met: float, late: bool
) -> dict[str, Any]:
    index, distance = by_key
    same = distance <= met
    if late:
        same |= (index == by_value[0]) & (distance <= LATE)
    near = ~same & (distance < FOREIGN)
    kinds = layout.classes[index]
    times = np.bincount(index[same & mask], minlength=len(layout.classes))
    known = ~same & (by_value[1] <= met) & (layout.classes[by_value[0]] != MASKED)
    copied = known & (times[by_value[0]] > 0) & (layout.classes[by_value[0]] != PAD)
    misplaced = known & ~copied
    hidden = np.bincount(index[same & ~mask], minlength=len(layout.classes))
    # What is near a token's key, or has its value, is no other token; it is not missing.
    spoken = np.bincount(index[near & ~known & mask], minlength=len(layout.classes))
    spoken += np.bincount(by_value[0][misplaced & mask], minlength=len(layout.classes))
    counts: dict[str, Any] = {}
    for name, kind in (("image", IMAGE), ("caption", CAPTION)):
        here = layout.classes == kind
        counts[f"{name}_tokens"] = int(here.sum())
        counts[f"{name}_met"] = int((times[here] > 0).sum())
        counts[f"{name}_missing"] = int(((times + spoken)[here] == 0).sum())
        counts[f"{name}_duplicated"] = int(np.maximum(times[here] - 1, 0).sum())
    copies = np.bincount(by_value[0][copied & mask], minlength=len(layout.classes))
    counts["image_copied"] = int(copies[layout.classes == IMAGE].sum())
    counts["caption_duplicated"] += int(copies[layout.classes == CAPTION].sum())
    counts["pads"] = layout.num(PAD)
    counts["pads_met"] = int((same & mask & (kinds == PAD)).sum())
    counts["masked_met"] = int((same & mask & (kinds == MASKED)).sum())
    counts["masked_away"] = int(((hidden > 0) & (times == 0) & (layout.classes != MASKED)).sum())
    counts["wrong_position"] = int((misplaced & mask).sum())
    counts["foreign"] = int((mask & ~same & ~near & ~known).sum())
    counts["doubtful"] = int((mask & near & ~known).sum())
    return counts


def sentence_of(line: LedgerLine) -> str:
    """One line a person reads.

    >>> line = LedgerLine(1, "layers.0", 1, 0, 2025, 1013, 1012, 0, 87, 87, 32, 32, 0, 32)
    >>> sentence_of(line)
    'rank 1 meets 1,013 of 2,025 image tokens (missing 1,012), caption twice'
    """
    parts = []
    if line.image_tokens:
        parts.append(_part("image tokens", line.image_met, line.image_tokens, line.image_missing))
        if line.image_duplicated:
            parts.append(f"{line.image_duplicated:,} of them again")
        if line.image_copied:
            parts.append(f"{line.image_copied:,} of them again at another place")
    if line.pads_met != line.pads:
        parts.append(f"{line.pads_met:,} pads instead of {line.pads:,}")
    parts += _caption_parts(line)
    counts = {
        "at a wrong position": line.wrong_position,
        "foreign": line.foreign,
        "doubtful": line.doubtful,
        "that should be masked": line.masked_met,
        "masked that should be met": line.masked_away,
    }
    parts += [f"{number:,} {words}" for words, number in counts.items() if number]
    return f"rank {line.rank} meets {', '.join(parts)}"


def _caption_parts(line: LedgerLine) -> list[str]:
    if line.caption_tokens and line.caption_duplicated == line.caption_tokens == line.caption_met:
        return ["caption twice"]
    parts = []
    if line.caption_met != line.caption_tokens or not line.image_tokens:
        parts.append(_part("caption tokens", line.caption_met, line.caption_tokens, line.caption_missing))
    if line.caption_duplicated:
        parts.append(f"{line.caption_duplicated:,} caption tokens again")
    return parts


def _part(what: str, met: int, known: int, missing: int) -> str:
    lost = f" (missing {missing:,})" if missing else ""
    return f"all {known:,} {what}" if met == known else f"{met:,} of {known:,} {what}{lost}"
