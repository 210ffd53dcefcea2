"""The sentence of a verdict: what a person who never saw this project reads first."""

from __future__ import annotations

from collections.abc import Sequence

from harness.diagnose.cause import first_failing
from harness.types import Comparison, Judgement, Outcome, Relation, Row


def of_row(row: Row, outcome: Outcome, judgements: Sequence[Judgement]) -> str:
    """Say in one or two sentences how the row ended and whether a difference is pads or damage."""
    if outcome == Outcome.FAIL:
        return _failing(row, judgements)
    text = _healthy(row, judgements)
    cache = row.comparison(Relation.CACHE)
    if cache is not None:
        text = f"{text} {cache.note.capitalize()}."
    return f"{text} No golden is approved for this case yet." if outcome == Outcome.NO_GOLDEN else text


def of_suspicion(row: Row) -> str:
    """Say that a passing row lies near its bound, and whether it was looked into."""
    if row.explanation is None:
        return f" It lies near its bound: look inside with sp-harness explain RUN {row.name}."
    return " It lies near its bound and was drawn once more with a probe: attention meets the tokens it should."


def describe(comparison: Comparison | None) -> str:
    """Latents PSNR in words: ``exact``, ``141.2 dB``, or the problem.

    >>> describe(None)
    'not measured'
    """
    if comparison is None:
        return "not measured"
    if comparison.problem:
        return comparison.problem
    if comparison.exact:
        return "exact"
    for domain in ("latents", "image"):
        figure = comparison.figure("psnr", domain)
        if figure is not None and figure.value is not None:
            return f"{figure.value:.1f} dB" + (" of the image" if domain == "image" else "")
    return "differs"


def describe_image(comparison: Comparison | None) -> str:
    """PSNR and SSIM of pictures, ``38.2 dB / 0.9812`` or ``exact``; a dash where they were not measured.

    >>> describe_image(None)
    '\N{EN DASH}'
    """
    if comparison is None or comparison.problem:
        return "\N{EN DASH}"
    if comparison.same_run:
        return "same run"
    if comparison.exact_image:
        return "exact"
    psnr, ssim = comparison.figure("psnr", "image"), comparison.figure("ssim", "image")
    if psnr is None or psnr.value is None:
        return "\N{EN DASH}"
    return f"{psnr.value:.1f} dB" + (f" / {ssim.value:.4f}" if ssim and ssim.value is not None else "")


def _healthy(row: Row, judgements: Sequence[Judgement]) -> str:
    exchange, pair = row.comparison(Relation.EXCHANGE), row.comparison(Relation.PAIR)
    if row.variant.degree == 1:
        return f"One device, nothing is split: {describe(pair)} against the baseline."
    if pair is not None and pair.exact:
        return "Equal to the single-device picture to the last bit."
    surplus = row.surplus_pads
    by_control = {judgement.relation: judgement for judgement in judgements if judgement.bound is not None}
    if row.own and Relation.OWN_EXCHANGE in by_control:
        said = by_control[Relation.CONTROL].sentence if Relation.CONTROL in by_control else "not measured"
        own = describe(row.comparison(Relation.OWN_EXCHANGE))
        return (
            f"Splitting costs no more than rounding (own-exchange {own} to the engine on one device), and on one "
            f"device it keeps to its baseline (control {said})."
        )
    split = _split_cost(exchange)
    if surplus is None:
        return f"{split} To the baseline it is {describe(pair)}."
    if not surplus:
        return f"{split} The layout adds no pad tokens, so this is all a user sees ({describe(pair)})."
    layout = row.comparison(Relation.LAYOUT)
    return (
        f"{split} The {describe(pair)} to the baseline are pads, not damage: this cut adds {surplus} pad tokens, "
        f"and one device given as many differs just so ({describe(layout)})."
    )


def _split_cost(exchange: Comparison | None) -> str:
    if exchange is not None and exchange.exact:
        return "Splitting costs nothing (exchange exact)."
    return f"Splitting stays at the noise floor (exchange {describe(exchange)})."


def _failing(row: Row, judgements: Sequence[Judgement]) -> str:
    relation = first_failing(judgements)
    assert relation is not None
    said = next(
        judgement.sentence for judgement in judgements if judgement.relation == relation and judgement.ok is False
    )
    comparison = row.comparison(relation)
    if relation == Relation.EXCHANGE:
        control = describe(row.comparison(Relation.CONTROL))
        pads = "" if row.surplus_pads is None else ", and pads are not to blame: the replay has as many"
        return (
            f"Splitting over {row.variant.degree} ranks damages the picture: exchange {said}. On one device the "
            f"engine is right (control {control}){pads}.{_where(row)}"
        )
    if relation == Relation.GOLDEN_BASELINE and comparison is not None and comparison.problem:
        return f"The picture cannot be held to its golden: {said}."
    openings = {
        Relation.REPEAT: "The baseline, drawn twice, differs from itself:",
        Relation.CACHE: "The cache decides otherwise when the picture is split:",
        Relation.PADDED_CONTROL: f"{row.variant.engine} is wrong on one device, padded as its split is: control",
        Relation.OWN_EXCHANGE: f"Splitting over {row.variant.degree} ranks differs from the engine on one device:",
        Relation.CONTROL: f"{row.variant.engine} is wrong on one device already: control",
        Relation.GOLDEN_BASELINE: "The baseline no longer draws the approved picture:",
        Relation.LAYOUT: "Pads cost more than was approved:",
        Relation.PAIR: "The picture is further from the baseline than was approved:",
        Relation.GOLDEN_CANDIDATE: "The picture is further from the golden than was approved:",
    }
    return f"{openings[relation]} {said}."


def _where(row: Row) -> str:
    exchange = row.comparison(Relation.EXCHANGE)
    tile = exchange.figure("worst-tile", "image") if exchange else None
    if tile is None or tile.where_px is None:
        return ""
    left, top, right, bottom = tile.where_px
    return f" Worst in the box from ({left}, {top}) to ({right}, {bottom}) px."
