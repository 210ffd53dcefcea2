"""The first divergence on made-up traces: every rank's tokens find their place in the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from harness.diagnose.divergence import TOLERANCE, displaced, out_of_place, tokens_of, trace
from harness.diagnose.records import Array, Probe
from harness.planning.cut import cut
from harness.types import Displaced, Explanation, Relation, ShardPlan, Size

SIZE = Size(80, 112)  # five columns and seven rows of tokens
TOKENS, PADS, CAPTIONS = 35, 29, (20, 32)
LONGEST = max(CAPTIONS)
MODULES = ("all_x_embedder.2-1", "noise_refiner.0", "context_refiner.0", "layers.0", "layers.10", "all_final_layer.2-1")
STEPS = (1, 2)


def baseline() -> Probe:
    """Traces as diffusers' own pipeline leaves them: the embedder flat, the final layer over everything."""
    random = np.random.default_rng(0)
    lengths = {"all_x": TOKENS + PADS, "noise": TOKENS + PADS, "context": LONGEST}
    rows = {}
    for step in STEPS:
        for module in MODULES:
            length = lengths.get(module.split("_refiner")[0].split("_embedder")[0], TOKENS + PADS + LONGEST)
            full = random.normal(size=(2, length, 4)).astype(np.float32)
            rows[step, module] = full.reshape(-1, 4) if module.startswith("all_x") else full
    mask = np.arange(TOKENS + PADS + LONGEST) < TOKENS + PADS + np.asarray(CAPTIONS)[:, None]
    keys = np.zeros((2, 1, TOKENS + PADS, 1), np.float32)
    return Probe({(1, "noise_refiner.0"): keys}, {}, {(1, "layers.0"): mask}, rows)


def ranks_of(whole: Probe, plan: ShardPlan, ring: bool = False) -> list[Probe]:
    """What ranks hold of it: their own tokens, pads of their own, and the whole caption."""
    random = np.random.default_rng(1)
    found = []
    for rank in range(len(plan.shard_tokens)):
        rows = {}
        for call, full in whole.rows.items():
            items = full.reshape(2, -1, 4)

            def shard(owner: int, items: Array = items) -> Array:
                own = items[:, tokens_of(plan, owner, TOKENS)]
                pads = random.normal(size=(2, plan.sequence_lengths[owner] - own.shape[1], 4))
                return np.concatenate([own, pads], axis=1)

            module = call[1]
            if module.startswith("context"):
                rows[call] = items.copy()
            elif module.startswith("layers"):
                owners = range(len(plan.shard_tokens)) if ring else [rank]
                rows[call] = np.concatenate([*map(shard, owners), items[:, TOKENS + PADS :]], axis=1)
            elif module.startswith("noise"):
                rows[call] = shard(rank)
            else:
                rows[call] = items[:, tokens_of(plan, rank, TOKENS)]
        found.append(Probe({}, {}, {}, rows))
    return found


@pytest.mark.parametrize("axis", ["h", "w"])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("layout", ["aligned", "exact"])
@pytest.mark.parametrize("ring", [False, True])
def test_equal_traces_have_no_error_however_they_are_cut(axis: Any, num_ranks: int, layout: Any, ring: bool) -> None:
    plan = cut(SIZE, num_ranks, axis, layout=layout)
    whole = baseline()
    errors = trace(whole, ranks_of(whole, plan, ring and num_ranks > 1), plan, SIZE)
    assert [(error.step, error.module) for error in errors] == [(step, module) for step in STEPS for module in MODULES]
    assert {(error.error, error.tokens, error.box_px) for error in errors} == {(0.0, 0, None)}


@pytest.mark.parametrize(("axis", "box"), [("h", (48, 80, 80, 112)), ("w", (48, 0, 80, 16))])
def test_a_wrong_token_is_found_with_rank_and_box(axis: Literal["h", "w"], box: tuple[int, ...]) -> None:
    plan = cut(SIZE, 2, axis)
    whole = baseline()
    ranks = ranks_of(whole, plan)
    # The last rank's: rows 4 to 6 of tokens, of which the second row's last two; or columns 3 and 4, first row.
    for token in (8, 9, 14) if axis == "h" else (0, 1):
        ranks[1].rows[1, "layers.0"][0, token] += 1
    explanation = Explanation(Relation.EXCHANGE, "a", "b", blocks=trace(whole, ranks, plan, SIZE), tolerance=1e-3)
    first = explanation.first_divergence
    assert first is not None
    assert (first.step, first.module, first.rank, first.box_px) == (1, "layers.0", 1, box)
    assert first.tokens == (3 if axis == "h" else 2)
    assert first.median == 0
    assert first.error == pytest.approx(1.0, abs=0.1)  # a step of 1 in each of 4 numbers, over their length of 2


def test_a_wrong_caption_has_no_box_and_what_is_masked_counts_for_nothing() -> None:
    plan = cut(SIZE, 2, "h")
    whole = baseline()
    ranks = ranks_of(whole, plan)
    suffix = plan.sequence_lengths[0]
    ranks[0].rows[1, "layers.0"][0, suffix + CAPTIONS[0] :] += 1
    assert not any(error.tokens for error in trace(whole, ranks, plan, SIZE))
    ranks[0].rows[1, "layers.0"][0, suffix + 1] += 1
    (found,) = [error for error in trace(whole, ranks, plan, SIZE) if error.tokens]
    assert (found.module, found.rank, found.tokens, found.box_px) == ("layers.0", 0, 1, None)


def test_what_is_not_finite_diverges() -> None:
    plan = cut(SIZE, 2, "h")
    whole = baseline()
    ranks = ranks_of(whole, plan)
    ranks[1].rows[2, "noise_refiner.0"][1, 0] = np.nan
    explanation = Explanation(Relation.EXCHANGE, "a", "b", blocks=trace(whole, ranks, plan, SIZE), tolerance=1e-3)
    first = explanation.first_divergence
    assert first is not None
    assert (first.step, first.module, first.error, first.rank) == (2, "noise_refiner.0", None, 1)


def test_a_block_that_one_side_lacks_is_left_out() -> None:
    plan = cut(SIZE, 2, "h")
    whole = baseline()
    first, second = ranks_of(whole, plan)
    second = replace(second, rows={call: rows for call, rows in second.rows.items() if call != (2, "layers.10")})
    assert len(trace(whole, [first, second], plan, SIZE)) == len(STEPS) * len(MODULES) - 1
    assert trace(replace(whole, keys={}), [first, second], plan, SIZE) == ()


def test_tokens_cut_from_the_wrong_place_are_told_from_other_noise() -> None:
    plan = cut(SIZE, 2, "h")
    whole = baseline()
    ranks = ranks_of(whole, plan)
    assert out_of_place(whole, ranks, plan, SIZE) == 0
    call = (1, MODULES[0])
    own = ranks[1].rows[call]
    ranks[1].rows[call] = np.roll(own, 5, axis=1)
    assert out_of_place(whole, ranks, plan, SIZE) == own.shape[0] * own.shape[1]
    ranks[1].rows[call] = np.random.default_rng(5).normal(size=own.shape)
    assert out_of_place(whole, ranks, plan, SIZE) <= 2


@pytest.mark.parametrize("axis", ["h", "w"])
def test_shards_that_changed_places_are_found(axis: Literal["h", "w"]) -> None:
    plan = cut(SIZE, 2, axis)
    random = np.random.default_rng(0)
    latents = random.normal(size=(1, 4, SIZE.height_px // 8, SIZE.width_px // 8)).astype(np.float32)
    dim = 2 if axis == "h" else 3
    first, second = np.split(latents, [plan.shard_tokens[0] * 2], axis=dim)
    assert displaced(latents, latents, plan) == ()
    px = [tokens * 16 for tokens in plan.shard_tokens]
    swapped = displaced(latents, np.concatenate([second, first], axis=dim), plan)
    assert swapped == (Displaced(0, px[1], 0), Displaced(1, 0, px[0]))
    longer = np.concatenate([first, np.zeros_like(first)[:, :, :2, :], second], axis=2) if axis == "h" else None
    if longer is not None:
        assert displaced(latents, longer, plan) == (Displaced(1, px[0] + 16, px[0]),)


def test_tolerances_lie_above_round_off() -> None:
    assert TOLERANCE["float32"] < TOLERANCE["float16"] < TOLERANCE["bfloat16"] < 1
