"""Shard plans: axis, shards and pads of a picture, by arithmetic alone.

The rules are those of SGLang's PR 21042 (``docs/words.md`` has the vocabulary):

* Tokens along an axis are split evenly; the first ``remainder`` ranks get one more.
* Every rank pads its own image tokens to the common target, the longest local sequence rounded up
  to a multiple of 32.
* The cost of an axis is the pads of all ranks. The lower cost wins; a tie goes to the axis with
  more tokens, and a tie in that to ``h``.

That is layout ``aligned``. Layout ``exact`` cuts alike and needs no common target: ranks exchange their
true numbers of tokens, and the last one carries the pads that a single device would have. Every axis then
costs the same, so the axis with more tokens wins.
"""

from __future__ import annotations

from typing import Literal

from harness.types import AxisChoice, Layout, ShardPlan, Size

AXES: tuple[Literal["h", "w"], ...] = ("h", "w")
PAD_MULTIPLE = 32
"""Tokens; Z-Image pads caption and image sequences to a multiple of it."""


def split_evenly(tokens: int, num_ranks: int) -> tuple[int, ...]:
    """Split ``tokens`` over ranks; the first ``tokens % num_ranks`` ranks get one more.

    >>> split_evenly(45, 2)
    (23, 22)
    """
    share, remainder = divmod(tokens, num_ranks)
    return tuple(share + (rank < remainder) for rank in range(num_ranks))


def pads_of(tokens: int, multiple: int = PAD_MULTIPLE) -> int:
    """Count the pads that bring a sequence to the next multiple.

    >>> pads_of(2025)
    23
    """
    return -tokens % multiple


def cut(
    size: Size,
    num_ranks: int,
    axis: Literal["h", "w"],
    multiple: int = PAD_MULTIPLE,
    layout: Layout = "aligned",
) -> ShardPlan:
    """Cut a picture along one axis.

    Parameters
    ----------
    size
        The picture, in pixels.
    num_ranks
        Ranks of the SP group, at least 1.
    axis
        ``h`` cuts rows of tokens, ``w`` columns.
    multiple
        Sequence lengths are padded to a multiple of this.
    layout
        ``aligned`` pads every rank to the common target, ``exact`` pads as one device does.

    Returns
    -------
    ShardPlan
        Infeasible, with its reason, if a rank would get nothing.
    """
    along, across = (size.tokens_h, size.tokens_w) if axis == "h" else (size.tokens_w, size.tokens_h)
    shard_tokens = split_evenly(along, num_ranks)
    local_tokens = tuple(tokens * across for tokens in shard_tokens)
    single_pads = pads_of(size.tokens, multiple)
    if layout == "exact":
        lengths = (*local_tokens[:-1], local_tokens[-1] + single_pads)
    else:
        lengths = (max(local_tokens) + pads_of(max(local_tokens), multiple),) * num_ranks
    pad_tokens = sum(lengths) - size.tokens
    lines = "rows" if axis == "h" else "columns"
    feasible = along >= num_ranks
    return ShardPlan(
        axis=axis,
        feasible=feasible,
        reason="" if feasible else f"{along} {lines} of tokens over {num_ranks} ranks leave rank {along} empty",
        shard_tokens=shard_tokens,
        local_tokens=local_tokens,
        sequence_target=max(lengths),
        pad_tokens=pad_tokens,
        surplus_pad_tokens=pad_tokens - single_pads,
        sequence_lengths=lengths,
        layout=layout,
    )


def choose_axis(
    size: Size,
    ulysses: int,
    axis: Literal["auto", "h", "w"] = "auto",
    ring: int = 1,
    multiple: int = PAD_MULTIPLE,
    layout: Layout = "aligned",
) -> AxisChoice:
    """Plan both axes and choose one, or take the one asked for.

    ``AxisChoice.rule`` states the reason; ``chosen_axis`` is ``None`` where no requested axis is feasible.
    """
    num_ranks = ulysses * ring
    plans: dict[str, ShardPlan] = {name: cut(size, num_ranks, name, multiple, layout) for name in AXES}
    chosen, rule = _asked(plans, axis) if axis != "auto" else _win(size, plans)
    return AxisChoice(
        size=str(size),
        tokens_h=size.tokens_h,
        tokens_w=size.tokens_w,
        ulysses=ulysses,
        single_pad_tokens=pads_of(size.tokens, multiple),
        chosen_axis=chosen,
        rule=rule,
        axes=plans,
    )


def _asked(plans: dict[str, ShardPlan], axis: Literal["h", "w"]) -> tuple[Literal["h", "w"] | None, str]:
    plan = plans[axis]
    return (axis, "asked for") if plan.feasible else (None, f"axis {axis}: {plan.reason}")


def _win(size: Size, plans: dict[str, ShardPlan]) -> tuple[Literal["h", "w"] | None, str]:
    h, w = plans["h"], plans["w"]
    if not (h.feasible or w.feasible):
        return None, f"neither axis is feasible: {h.reason}; {w.reason}"
    if not (h.feasible and w.feasible):
        return ("h", f"only axis ({w.reason})") if h.feasible else ("w", f"only axis ({h.reason})")
    if h.pad_tokens != w.pad_tokens:
        low, high = (h, w) if h.pad_tokens < w.pad_tokens else (w, h)
        return low.axis, f"lower cost ({low.pad_tokens} pads against {high.pad_tokens})"
    if size.tokens_h != size.tokens_w:
        winner: Literal["h", "w"] = "h" if size.tokens_h > size.tokens_w else "w"
        more, fewer = sorted((size.tokens_h, size.tokens_w), reverse=True)
        return winner, f"tie in cost, more tokens ({more} against {fewer})"
    return "h", "tie in cost and tokens"
