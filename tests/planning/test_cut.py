"""The cut: held to a statement of the rules that counts tokens one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.planning.cut import choose_axis, cut, pads_of, split_evenly
from harness.types import Size

SIZES = st.builds(lambda w, h: Size(16 * w, 16 * h), st.integers(1, 90), st.integers(1, 90))
RANKS = st.integers(1, 8)
AXES = ("h", "w")


def deal(tokens: int, num_ranks: int) -> list[int]:
    """Deal tokens out one by one, in turn, as cards are dealt."""
    hands = [0] * num_ranks
    for token in range(tokens):
        hands[token % num_ranks] += 1
    return hands


def next_multiple(tokens: int, multiple: int = 32) -> int:
    while tokens % multiple:
        tokens += 1
    return tokens


def counted(size: Size, num_ranks: int, axis: str) -> dict[str, Any]:
    """What the rules say, by counting."""
    along, across = {"h": (size.tokens_h, size.tokens_w), "w": (size.tokens_w, size.tokens_h)}[axis]
    shards = deal(along, num_ranks)
    local = [across * shard for shard in shards]
    target = next_multiple(max(local))
    cost = sum(target - tokens for tokens in local)
    return {
        "shard_tokens": tuple(shards),
        "local_tokens": tuple(local),
        "sequence_target": target,
        "pad_tokens": cost,
        "surplus_pad_tokens": cost - (next_multiple(size.tokens) - size.tokens),
        "feasible": min(shards) > 0,
    }


def winner(size: Size, num_ranks: int) -> str | None:
    """The winning axis, by sorting: lowest cost, then most tokens, then h."""
    tokens = {"h": size.tokens_h, "w": size.tokens_w}
    sound = [axis for axis in AXES if counted(size, num_ranks, axis)["feasible"]]
    ranked = sorted(sound, key=lambda axis: (counted(size, num_ranks, axis)["pad_tokens"], -tokens[axis], axis))
    return ranked[0] if ranked else None


@given(st.integers(1, 3000), RANKS)
def test_an_even_split_gives_the_rest_to_the_first(tokens: int, num_ranks: int) -> None:
    assert list(split_evenly(tokens, num_ranks)) == deal(tokens, num_ranks)


@given(st.integers(0, 5000), st.integers(1, 64))
def test_pads_fill_up_to_the_next_multiple(tokens: int, multiple: int) -> None:
    assert tokens + pads_of(tokens, multiple) == next_multiple(tokens, multiple)


@given(SIZES, RANKS, st.sampled_from(AXES))
@example(Size(16, 16), 8, "h")
def test_a_cut_is_what_counting_gives(size: Size, num_ranks: int, axis: Any) -> None:
    plan = cut(size, num_ranks, axis)
    expected = counted(size, num_ranks, axis)
    assert {key: getattr(plan, key) for key in expected} == expected
    assert plan.axis == axis
    assert bool(plan.reason) is not plan.feasible


@given(SIZES, RANKS, st.sampled_from(AXES))
def test_layout_exact_pads_as_one_device_does(size: Size, num_ranks: int, axis: Any) -> None:
    plan = cut(size, num_ranks, axis, layout="exact")
    single_pads = next_multiple(size.tokens) - size.tokens
    assert plan.shard_tokens == cut(size, num_ranks, axis).shard_tokens
    assert (plan.pad_tokens, plan.surplus_pad_tokens) == (single_pads, 0)
    assert plan.sequence_lengths == (*plan.local_tokens[:-1], plan.local_tokens[-1] + single_pads)


@given(SIZES, RANKS, st.sampled_from(AXES))
def test_nothing_is_lost_or_drawn_twice(size: Size, num_ranks: int, axis: Any) -> None:
    plan = cut(size, num_ranks, axis)
    assert sum(plan.local_tokens) == size.tokens
    assert plan.sequence_target * num_ranks == size.tokens + plan.pad_tokens
    assert plan.sequence_lengths == (plan.sequence_target,) * num_ranks
    grids = [plan.grid(rank) for rank in range(num_ranks)]
    assert tuple(rows * columns for rows, columns in grids) == plan.local_tokens
    along, across = (0, 1) if axis == "h" else (1, 0)
    assert tuple(grid[along] for grid in grids) == plan.shard_tokens
    assert {grid[across] for grid in grids if grid[along]} == {(size.tokens_h, size.tokens_w)[across]}
    assert max(plan.shard_tokens) - min(plan.shard_tokens) <= 1
    assert plan.origins == tuple(sum(plan.shard_tokens[:rank]) for rank in range(num_ranks))


@given(SIZES, st.integers(1, 4), st.integers(1, 2))
@example(Size(16, 16), 2, 1)
@example(Size(16, 64), 2, 1)
@example(Size(64, 16), 2, 1)
def test_the_axis_that_wins(size: Size, ulysses: int, ring: int) -> None:
    choice = choose_axis(size, ulysses, ring=ring)
    assert choice.chosen_axis == winner(size, ulysses * ring)
    assert choice.chosen == (choice.axes[choice.chosen_axis] if choice.chosen_axis else None)
    assert choice.single_pad_tokens == next_multiple(size.tokens) - size.tokens


@given(SIZES, RANKS, st.sampled_from(AXES))
def test_the_axis_asked_for_is_taken_where_it_can_be(size: Size, ulysses: int, axis: Any) -> None:
    choice = choose_axis(size, ulysses, axis)
    feasible = counted(size, ulysses, axis)["feasible"]
    assert choice.chosen_axis == (axis if feasible else None)
    assert choice.axes == choose_axis(size, ulysses).axes


@given(SIZES)
def test_one_rank_pads_as_one_device_does(size: Size) -> None:
    plan = cut(size, 1, "h")
    assert plan.surplus_pad_tokens == 0
    assert plan.local_tokens == (size.tokens,)


@pytest.mark.parametrize("multiple", [1, 16, 128])
def test_a_model_may_pad_to_another_multiple(multiple: int) -> None:
    plan = cut(Size(720, 720), 2, "h", multiple)
    assert plan.sequence_target == next_multiple(1035, multiple)
    assert choose_axis(Size(720, 720), 2, multiple=multiple).single_pad_tokens == next_multiple(2025, multiple) - 2025


@pytest.mark.parametrize(
    ("size", "axis", "shards", "pads", "single"),
    [
        ("1024x1024", "h", (32, 32), 0, 0),
        ("1024x1024", "w", (32, 32), 0, 0),
        ("720x1280", "h", (40, 40), 48, 16),
        ("720x1280", "w", (23, 22), 112, 16),
        ("720x720", "h", (23, 22), 87, 23),
        ("720x720", "w", (23, 22), 87, 23),
        ("1280x720", "h", (23, 22), 112, 16),
        ("1280x720", "w", (40, 40), 48, 16),
    ],
)
def test_the_report_sizes(size: str, axis: Any, shards: tuple[int, ...], pads: int, single: int) -> None:
    choice = choose_axis(Size.parse(size), 2, axis)
    assert choice.chosen is not None
    assert choice.chosen.shard_tokens == shards
    assert (choice.chosen.pad_tokens, choice.single_pad_tokens) == (pads, single)
    assert choice.chosen.surplus_pad_tokens == pads - single


@pytest.mark.parametrize(
    ("size", "axis", "rule"),
    [
        ("720x1280", "h", "lower cost (48 pads against 112)"),
        ("1280x720", "w", "lower cost (48 pads against 112)"),
        ("240x176", "w", "tie in cost, more tokens (15 against 11)"),
        ("176x240", "h", "tie in cost, more tokens (15 against 11)"),
        ("720x720", "h", "tie in cost and tokens"),
        ("16x64", "h", "only axis (1 columns of tokens over 2 ranks leave rank 1 empty)"),
        ("64x16", "w", "only axis (1 rows of tokens over 2 ranks leave rank 1 empty)"),
    ],
)
def test_the_rule_is_said_in_words(size: str, axis: str, rule: str) -> None:
    choice = choose_axis(Size.parse(size), 2)
    assert (choice.chosen_axis, choice.rule) == (axis, rule)


def test_an_empty_shard_is_infeasible_with_its_reason() -> None:
    neither = choose_axis(Size(32, 32), 3)
    assert neither.chosen is None
    assert "neither axis is feasible: 2 rows of tokens over 3 ranks leave rank 2 empty; 2 columns" in neither.rule
    asked = choose_axis(Size(64, 16), 2, "h")
    assert asked.chosen is None
    assert asked.rule == "axis h: 1 rows of tokens over 2 ranks leave rank 1 empty"
