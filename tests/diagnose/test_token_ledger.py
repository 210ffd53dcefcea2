"""The token ledger on made-up keys: what was done to them is what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.diagnose.records import Array, Probe
from harness.diagnose.token_ledger import ledger, nearest, telling
from harness.types import LedgerLine

IMAGE, PADS, CAPTION = 40, 7, 12
HEADS, WIDTH = 6, 8
CALL = (1, "layers.0")
REFINED = (1, "noise_refiner.0")


def reference(batch: int = 1, masked: int = 0) -> Probe:
    """Random keys and values: image tokens, pads that are all alike, caption, and masked rows of zeros."""
    random = np.random.default_rng(0)
    length = IMAGE + PADS + CAPTION + masked
    keys, values = (random.normal(size=(batch, HEADS, length, WIDTH)).astype(np.float32) for _ in range(2))
    for side in (keys, values):
        side[:, :, IMAGE : IMAGE + PADS] = side[:, :, IMAGE : IMAGE + 1]
        side[:, :, length - masked :] = 0
    mask = np.arange(length) < length - masked
    refined = IMAGE + PADS
    return Probe(
        keys={CALL: keys, REFINED: keys[:, :, :refined]},
        values={CALL: values, REFINED: values[:, :, :refined]},
        masks={CALL: np.tile(mask, (batch, 1)), REFINED: np.ones((batch, refined), bool)},
        rows={},
    )


def rank(whole: Probe, order: Any = None, heads: slice = slice(3, 6), noise: float = 1e-6) -> Probe:
    """One rank's view: some heads, the tokens in some order, and round-off."""
    random = np.random.default_rng(1)
    order = np.arange(whole.keys[CALL].shape[2]) if order is None else np.asarray(order)

    def view(side: Array) -> Array:
        part = side[:, heads][:, :, order]
        return (part + noise * random.normal(size=part.shape)).astype(np.float32)

    return Probe(
        {CALL: view(whole.keys[CALL])}, {CALL: view(whole.values[CALL])}, {CALL: whole.masks[CALL][:, order]}, {}
    )


def line_of(whole: Probe, *candidate: Probe, of: int = 0) -> LedgerLine:
    return [line for line in ledger(whole, candidate, IMAGE) if (line.step, line.module) == CALL][of]


@pytest.mark.parametrize("heads", [slice(0, 6), slice(0, 3), slice(3, 6), slice(2, 4)])
def test_tokens_in_any_order_over_any_heads_are_all_met(heads: slice) -> None:
    whole = reference()
    order = np.random.default_rng(2).permutation(IMAGE + PADS + CAPTION)
    line = line_of(whole, rank(whole, order, heads))
    assert line.clean
    assert (line.image_met, line.pads_met, line.caption_met) == (IMAGE, PADS, CAPTION)
    assert line.sentence == "rank 0 meets all 40 image tokens"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([*range(20), *range(40, 59)], {"image_met": 20, "image_missing": 20}),
        ([*range(59), *range(47, 59)], {"caption_duplicated": 12}),
        ([*range(50)], {"caption_met": 3, "caption_missing": 9}),
        ([*range(47), 40, 40, *range(47, 59)], {"pads_met": 9}),
        ([*range(59), 3, 3, 4], {"image_duplicated": 3}),
    ],
)
def test_what_is_missing_or_met_again_is_counted(order: list[int], expected: dict[str, int]) -> None:
    whole = reference()
    line = line_of(whole, rank(whole, order))
    assert {name: getattr(line, name) for name in expected} == expected
    changed = replace(line, sentence="", **dict.fromkeys(expected, 0))
    healthy = replace(line_of(whole, rank(whole)), sentence="", **dict.fromkeys(expected, 0))
    assert changed == healthy
    assert not line.clean


def test_a_person_reads_what_is_wrong() -> None:
    whole = reference()
    line = line_of(whole, rank(whole), rank(whole, [*range(20), *range(40, 59), *range(47, 59)]), of=1)
    assert line.sentence == "rank 1 meets 20 of 40 image tokens (missing 20), caption twice"


def changed(
    part: Probe, where: slice, keys: bool = True, values: bool = True, to: Callable[..., Array] | None = None
) -> Probe:
    random = np.random.default_rng(3)
    sides = []
    for side, touched in ((part.keys[CALL].copy(), keys), (part.values[CALL].copy(), values)):
        if touched:
            shape = side[:, :, where].shape
            side[:, :, where] = to(side[:, :, where]) if to else random.normal(size=shape)
        sides.append({CALL: side})
    return replace(part, keys=sides[0], values=sides[1])


def test_another_key_under_the_same_value_is_a_wrong_position() -> None:
    whole = reference()
    line = line_of(whole, changed(rank(whole), slice(30, 40), values=False))
    assert (line.wrong_position, line.foreign, line.image_met, line.image_missing) == (10, 0, 30, 0)


def test_another_key_and_another_value_are_foreign() -> None:
    whole = reference()
    line = line_of(whole, changed(rank(whole), slice(30, 40)))
    assert (line.wrong_position, line.foreign, line.image_met, line.image_missing) == (0, 10, 30, 10)


def test_a_copy_of_a_met_token_at_another_position_is_told_from_a_misplaced_one() -> None:
    whole = reference()
    order = [*range(59), *range(30, 36)]
    line = line_of(whole, changed(rank(whole, order), slice(59, 65), values=False))
    assert (line.image_copied, line.wrong_position, line.foreign, line.image_met) == (6, 0, 0, IMAGE)


def test_a_key_that_is_merely_near_is_doubtful_and_not_missing() -> None:
    whole = reference()
    line = line_of(whole, changed(rank(whole), slice(30, 40), to=lambda rows: rows * 1.1))
    assert (line.doubtful, line.foreign, line.image_met, line.image_missing) == (10, 0, 30, 0)


def test_keys_that_are_not_finite_are_foreign() -> None:
    whole = reference()
    line = line_of(whole, changed(rank(whole), slice(0, 1), to=lambda rows: rows * np.nan))
    assert (line.foreign, line.image_missing) == (1, 1)


def test_masks_are_followed_on_both_sides() -> None:
    whole = reference(masked=5)
    healthy = rank(whole, noise=0)
    assert line_of(whole, healthy).clean
    unmasked = replace(healthy, masks={CALL: np.ones_like(healthy.masks[CALL])})
    assert line_of(whole, unmasked).masked_met == 5
    moved = replace(healthy, masks={CALL: np.roll(healthy.masks[CALL], 5, axis=1)})
    line = line_of(whole, moved)
    assert (line.masked_met, line.masked_away, line.image_missing) == (5, 5, 5)


def test_pictures_of_a_batch_are_counted_apart() -> None:
    whole = reference(batch=2)
    part = rank(whole)
    part.keys[CALL][1, :, :4] = part.keys[CALL][0, :, :4]
    lines = [line for line in ledger(whole, [part], IMAGE) if line.module == CALL[1]]
    assert [(line.item, line.clean, line.image_missing) for line in lines] == [(0, True, 0), (1, False, 0)]
    assert lines[1].wrong_position == 4


def test_what_a_rank_did_not_record_is_not_counted() -> None:
    whole = reference()
    assert ledger(whole, [Probe({}, {}, {}, {})], IMAGE) == ()


def test_behind_the_first_unclean_call_only_first_blocks_are_kept() -> None:
    clean = line_of(reference(), rank(reference()))
    wrong = replace(clean, foreign=1)
    lines = [
        clean,
        replace(clean, module="layers.1"),
        replace(wrong, module="layers.2"),
        replace(wrong, module="layers.3"),
    ]
    assert [line.module for line in telling(lines)] == ["layers.0", "layers.2"]


def test_nearest_is_relative_and_exact_for_equal_rows() -> None:
    rows = np.asarray([[3.0, 4.0], [0.0, 0.0], [30.0, 44.0]], np.float32)
    known = np.asarray([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]], np.float32)
    index, distance = nearest(rows, known)
    assert index.tolist() == [1, 0, 2]
    assert distance == pytest.approx([0, 0, 4 / np.hypot(30, 44)])
    assert np.isinf(nearest(rows[:, :1], known)[1]).all()
    assert np.isinf(nearest(rows, known[:0])[1]).all()
