"""First divergence of a candidate from its reference: step, block, rank, and box in the picture.

Both sides' block outputs are laid side by side token by token, in the order of the reference: image tokens
row by row, image pads, caption. The plan says which tokens a rank holds. Errors are relative: the distance
of a token's output, over the root mean square of all tokens of that block. Outputs are sketches (random
projections, :mod:`harness.worker.probe.outputs`), which keep distances to about a fifth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.diagnose.records import Array, Probe
from harness.diagnose.token_ledger import FIRST_BLOCK, FOREIGN, MODULE_ORDER, module_key, nearest
from harness.types import PIXELS_PER_TOKEN, BlockError, Displaced, DType, ShardPlan, Size

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Relative error of a token that no round-off reaches within the few layers that lie before it."""

EMBEDDER = MODULE_ORDER[0]
EQUAL_SHARD = 0.02
"""Relative error within which two shards of latents show the same."""

CELLS_PER_TOKEN = 2
FIRST_JOINT = "layers.0"


@dataclass(frozen=True)
class Sequences:
    """Lengths of the parts of the reference's token sequences."""

    image: int
    pads: int
    captions: tuple[int, ...]
    """Of each picture of the batch, with the caption's own pads."""

    @classmethod
    def of(cls, reference: Probe, size: Size) -> Sequences | None:
        """Read them off the reference's attention at its first step; ``None`` where that was not recorded."""
        if (1, FIRST_BLOCK) not in reference.keys or (1, FIRST_JOINT) not in reference.masks:
            return None
        whole = reference.keys[1, FIRST_BLOCK].shape[2]
        lengths = reference.masks[1, FIRST_JOINT].sum(axis=1)
        return cls(size.tokens, whole - size.tokens, tuple(int(length) - whole for length in lengths))


def trace(
    reference: Probe, candidate: Sequence[Probe], plan: ShardPlan, size: Size, dtype: DType = "float32"
) -> tuple[BlockError, ...]:
    """Compare the outputs of all blocks that both sides computed, in the order of computation.

    Parameters
    ----------
    reference
        The one rank of the reference run.
    candidate
        All ranks of the candidate.
    plan
        The candidate's cut.
    size
        Of the picture.
    dtype
        Of the weights; decides the tolerance.
    """
    parts = Sequences.of(reference, size)
    if parts is None:
        return ()
    calls = [call for call in reference.rows if all(call in probe.rows for probe in candidate)]
    found = []
    for call in sorted(calls, key=lambda call: (call[0], module_key(call[1]))):
        errors = _errors(call, reference, candidate, plan, parts)
        if errors:
            found.append(_worst(call, errors, size, TOLERANCE[dtype]))
    return tuple(found)


def token_errors(
    reference: Probe, candidate: Sequence[Probe], plan: ShardPlan, size: Size, step: int, module: str
) -> tuple[float | None, ...]:
    """Relative error of every image token in one block's output, row by row; the worst of a batch.

    ``None`` where a value is not finite. Empty where nothing is known.
    """
    parts = Sequences.of(reference, size)
    if parts is None:
        return ()
    worst = np.zeros(size.tokens)
    for _, tokens, errors in _errors((step, module), reference, candidate, plan, parts):
        image = tokens >= 0
        np.maximum.at(worst, tokens[image], np.where(np.isfinite(errors[image]), errors[image], np.inf))
    return tuple(float(f"{error:.2g}") if np.isfinite(error) else None for error in worst)


def _errors(
    call: tuple[int, str], reference: Probe, candidate: Sequence[Probe], plan: ShardPlan, parts: Sequences
) -> list[tuple[int, Array, Array]]:
    """For each rank and picture of the batch: image tokens (-1 for all others), and their relative errors."""
    batch = len(parts.captions)
    known = _items(reference.rows[call], batch)
    scale = float(np.sqrt(np.square(known, dtype=np.float64).sum(axis=2).mean())) or 1.0
    errors = []
    for rank, probe in enumerate(candidate):
        mine = _items(probe.rows[call], batch)
        for item in range(batch):
            here, there = _pairs(call[1], rank, mine.shape[1], known.shape[1], plan, parts, item)
            if len(here):
                gap = np.linalg.norm(mine[item, here].astype(np.float64) - known[item, there], axis=1)
                errors.append((rank, np.where(_is_image(call[1], there, parts), there, -1), gap / scale))
    return errors


def out_of_place(reference: Probe, candidate: Sequence[Probe], plan: ShardPlan, size: Size) -> int:
    """Count tokens that were cut from the wrong place: before the first block, and equal to another token.

    What a token is before the first block comes from the noise under it alone.
    """
    parts = Sequences.of(reference, size)
    call = next((call for call in reference.rows if call[0] == 1 and call[1].startswith(EMBEDDER)), None)
    if parts is None or call is None or any(call not in probe.rows for probe in candidate):
        return 0
    batch, number = len(parts.captions), 0
    known = _items(reference.rows[call], batch)
    for rank, probe in enumerate(candidate):
        mine = _items(probe.rows[call], batch)
        tokens = tokens_of(plan, rank, parts.image)
        for item in range(batch):
            index, distance = nearest(mine[item, : len(tokens)], known[item, : parts.image])
            number += int(((index != tokens[: len(index)]) & (distance < FOREIGN / 10)).sum())
    return number


def displaced(reference: Array, candidate: Array, plan: ShardPlan) -> tuple[Displaced, ...]:
    """Find the shards of the reference's latents that stand elsewhere in the candidate's.

    Parameters
    ----------
    reference, candidate
        Latents ``B,C,H,W``, also of different size along the axis of the cut.
    plan
        The candidate's cut.
    """
    dim = 2 if plan.axis == "h" else 3
    left, right = (np.moveaxis(side, dim, 0).astype(np.float64) for side in (reference, candidate))
    if left.shape[1:] != right.shape[1:] or len(plan.shard_tokens) < 2:
        return ()
    found = []
    for rank, (origin, tokens) in enumerate(zip(plan.origins, plan.shard_tokens, strict=True)):
        shard = left[origin * CELLS_PER_TOKEN : (origin + tokens) * CELLS_PER_TOKEN]
        limit = (EQUAL_SHARD * np.linalg.norm(shard)) ** 2
        for start in range(0, len(right) - len(shard) + 1, CELLS_PER_TOKEN):
            gap = np.square(right[start : start + len(shard)] - shard).sum()
            if gap <= limit and start != origin * CELLS_PER_TOKEN:
                scale = PIXELS_PER_TOKEN // CELLS_PER_TOKEN
                found.append(Displaced(rank, start * scale, origin * PIXELS_PER_TOKEN))
    return tuple(found)


def _items(rows: Array, batch: int) -> Array:
    """``B*S,sketch`` to ``B,S,sketch``."""
    return rows if rows.ndim == 3 else rows.reshape(batch, -1, rows.shape[-1])


def _is_image(module: str, tokens: Array, parts: Sequences) -> Array:
    image: Array = (tokens < parts.image) & (not module.startswith("context"))
    return image


def _pairs(
    module: str, rank: int, length: int, known: int, plan: ShardPlan, parts: Sequences, item: int
) -> tuple[Array, Array]:
    """Rows of a rank's output, and the rows of the reference that they must equal.

    A rank holds its own tokens or, behind the gather of a ring, those of all; then the caption.
    """
    caption = np.arange(parts.captions[item])
    if module.startswith("context"):
        fits = min(length, known) >= len(caption)
        return (caption, caption) if fits else (caption[:0], caption[:0])
    lengths = plan.sequence_lengths
    suffix = max(0, known - parts.image - parts.pads) if module.startswith("layers") else 0
    whole = module.startswith("layers") and length != lengths[rank] + suffix and length >= sum(lengths) + suffix
    here, there = [], []
    for owner in range(len(lengths)) if whole else [rank]:
        start = sum(lengths[:owner]) if whole else 0
        tokens = tokens_of(plan, owner, parts.image)
        here.append(start + np.arange(len(tokens)))
        there.append(tokens)
    if suffix:
        here.append((sum(lengths) if whole else lengths[rank]) + caption)
        there.append(parts.image + parts.pads + caption)
    rows, tokens = np.concatenate(here), np.concatenate(there)
    known_here = (rows < length) & (tokens < known)
    return rows[known_here], tokens[known_here]


def tokens_of(plan: ShardPlan, rank: int, num_tokens: int) -> Array:
    """Numbers of a rank's image tokens in the whole picture, counted row by row, in the rank's own order."""
    rows, columns = plan.grid(rank)
    across = num_tokens // sum(plan.shard_tokens)
    width = across if plan.axis == "h" else sum(plan.shard_tokens)
    top, left = (plan.origins[rank], 0) if plan.axis == "h" else (0, plan.origins[rank])
    numbers: Array = ((top + np.arange(rows))[:, None] * width + left + np.arange(columns)).ravel()
    return numbers


def _worst(
    call: tuple[int, str], errors: Sequence[tuple[int, Array, Array]], size: Size, tolerance: float
) -> BlockError:
    every = np.concatenate([error for _, _, error in errors])
    tokens = np.concatenate([token for _, token, _ in errors])
    ranks = np.concatenate([np.full(len(error), rank) for rank, _, error in errors])
    beyond: Array = ~(every <= tolerance)  # also what is not finite
    worst = int(np.argmax(np.where(np.isfinite(every), every, np.inf)))
    all_finite = bool(np.isfinite(every).all())
    return BlockError(
        step=call[0],
        module=call[1],
        error=float(every.max()) if all_finite else None,
        median=float(np.median(every)) if all_finite else None,
        rank=int(ranks[worst]),
        box_px=_box(np.unique(tokens[beyond & (tokens >= 0)]), size),
        tokens=int(beyond.sum()),
    )


def _box(tokens: Array, size: Size) -> tuple[int, int, int, int] | None:
    """Box around image tokens, in pixels."""
    if not len(tokens):
        return None
    rows, columns = np.divmod(tokens, size.tokens_w)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    left, top, right, bottom = (int(edge) * PIXELS_PER_TOKEN for edge in edges)
    return left, top, right, bottom
