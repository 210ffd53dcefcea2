"""From ledger and traces to the cause: one made-up explanation for each rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.diagnose import cause
from harness.diagnose.inside import contradiction, of_explanation
from harness.types import (
    BlockError,
    Bound,
    Case,
    Comparison,
    Displaced,
    Explanation,
    Failure,
    FailureKind,
    Figure,
    Judgement,
    LedgerLine,
    Relation,
    Row,
    Size,
    Variant,
)

BLOCKS = ("all_x_embedder.2-1", "noise_refiner.0", "context_refiner.0", "layers.0", "layers.1", "all_final_layer.2-1")


def line(module: str, step: int = 1, rank: int = 0, **counts: Any) -> LedgerLine:
    image, caption = (0, 32) if module.startswith("context") else (81, 32 if module.startswith("layers") else 0)
    pads = 47 if image else 0
    clean = LedgerLine(step, module, rank, 0, image, image, 0, 0, pads, pads, caption, caption, 0, 0)
    return replace(clean, sentence="said", **counts)


def explanation(
    diverges: str | None = None, step: int = 1, ledger: tuple[LedgerLine, ...] = (), **more: Any
) -> Explanation:
    """Two steps of blocks, all within the tolerance before the one that diverges, none behind it."""
    blocks, beyond = [], False
    for number in (1, 2):
        for module in BLOCKS:
            beyond = beyond or (number, module) == (step, diverges)
            blocks.append(BlockError(number, module, 0.5 if beyond else 1e-6, 0.0, 1, (0, 0, 16, 16), 9 * beyond))
    calls = [line(module, number, rank) for number in (1, 2) for module in (BLOCKS[1:4]) for rank in (0, 1)]
    wrong = {(one.step, one.module, one.rank): one for one in ledger}
    lines = tuple(wrong.pop((one.step, one.module, one.rank), one) for one in calls)
    lines = tuple(sorted((*lines, *wrong.values()), key=lambda one: (one.step, BLOCKS.index(one.module), one.rank)))
    return Explanation(Relation.EXCHANGE, "r", "c", lines, tuple(blocks), 1e-3, **more)


FIRST, CAPTION, JOINT = BLOCKS[1:4]


@pytest.mark.parametrize(
    ("module", "counts", "word"),
    [
        (FIRST, {"image_met": 45, "image_missing": 36}, "exchange"),
        (FIRST, {"image_met": 45, "wrong_position": 36}, "position"),
        (FIRST, {"image_met": 0, "image_missing": 81, "foreign": 128, "pads_met": 0}, "exchange"),
        (FIRST, {"pads_met": 94}, "pads"),
        (FIRST, {"pads_met": 0, "foreign": 47}, "pads"),
        (FIRST, {"foreign": 128}, "exchange"),
        (FIRST, {"pads_met": 38, "image_copied": 9}, "cut/gather"),
        (FIRST, {"image_met": 0, "pads_met": 0, "doubtful": 128}, "exchange"),
        (CAPTION, {"masked_met": 4}, "mask"),
        (CAPTION, {"caption_met": 30, "foreign": 2}, "caption"),
        (JOINT, {"caption_duplicated": 32}, "caption"),
        (JOINT, {"caption_met": 16, "caption_missing": 16}, "caption"),
        (JOINT, {"caption_met": 0, "wrong_position": 32}, "position"),
        (JOINT, {"masked_away": 3, "caption_met": 29, "caption_missing": 3}, "mask"),
    ],
)
def test_what_ranks_meet_names_the_cause(module: str, counts: dict[str, int], word: str) -> None:
    found = of_explanation(explanation(module, ledger=(line(module, rank=1, **counts),)))
    assert found.cause == word
    assert found.seen == f"step 1, {module}: said"
    assert any("first divergence: step 1" in text for text in found.evidence)


def test_image_tokens_in_the_place_of_pads_are_pads_where_nothing_is_cut() -> None:
    copied = explanation(FIRST, ledger=(line(FIRST, pads_met=32, image_copied=15),))
    assert of_explanation(copied, split=False).cause == "pads"


@pytest.mark.parametrize(
    ("module", "step", "word"),
    [
        (BLOCKS[0], 1, "noise"),
        (BLOCKS[0], 2, "noise"),
        (FIRST, 1, "exchange"),
        (CAPTION, 1, "caption"),
        ("layers.1", 2, "exchange"),
        (BLOCKS[-1], 1, "cut/gather"),
        (None, 1, "cut/gather"),
    ],
)
def test_where_attention_is_right_the_first_wrong_block_does(module: str | None, step: int, word: str) -> None:
    found = of_explanation(explanation(module, step))
    assert found.cause == word
    assert any("every rank meets every token once" in text for text in found.evidence)


def test_what_comes_after_the_first_divergence_is_a_consequence() -> None:
    late = line(JOINT, rank=1, image_met=0, image_missing=81, foreign=81)
    assert of_explanation(explanation(CAPTION, ledger=(late,))).cause == "caption"


def test_tokens_from_elsewhere_were_cut_there() -> None:
    assert of_explanation(explanation(BLOCKS[0], out_of_place=9)).cause == "cut/gather"


def test_shards_at_the_wrong_place_are_evidence() -> None:
    found = of_explanation(explanation(displaced=(Displaced(1, 0, 80),)))
    assert found.cause == "cut/gather"
    assert "the shard of rank 1 belongs at 80 px and stands at 0 px" in found.evidence


@pytest.mark.parametrize(("repeated", "word"), [(None, "noise"), (90.0, "noise"), (22.0, "non-determinism")])
def test_a_repetition_explains_an_error_no_larger_than_its_own(repeated: float | None, word: str) -> None:
    found = explanation(BLOCKS[0], redrawn_db={"reference": None, "candidate": repeated})
    assert of_explanation(found, error_db=20.0).cause == word


def test_trouble_under_the_cache_alone_is_the_caches() -> None:
    served = (False, True)
    assert of_explanation(explanation("layers.1"), cached=served).cause == "cache"
    assert of_explanation(explanation(JOINT, step=2), cached=served).cause == "cache"
    assert of_explanation(explanation(JOINT), cached=served).cause == "exchange"
    assert of_explanation(explanation("layers.1"), cached=()).cause == "exchange"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"weights_off": ("rank 1: layers.1",)}, "weights"),
        ({"batches": (1, 2)}, "guidance"),
        ({"batches": (2, 2)}, "exchange"),
        ({"times_off": (1, 2)}, "schedule"),
        ({"times_off": (2,)}, "exchange"),  # a consequence, or later than the first divergence
        ({"caption_keys": (32, 128)}, "pads"),
        ({"caption_keys": (32, 32)}, "exchange"),
    ],
)
def test_inputs_that_are_wrong_explain_what_blocks_make_of_them(given: dict[str, Any], word: str) -> None:
    assert of_explanation(explanation("layers.1", **given)).cause == word


def test_more_caption_tokens_that_move_the_image_are_the_captions() -> None:
    moved = (line(FIRST, rank=1, image_met=0, wrong_position=81),)
    assert of_explanation(explanation(FIRST, ledger=moved, caption_keys=(32, 128))).cause == "caption"


def test_a_step_that_begins_with_other_latents_was_updated_wrongly() -> None:
    late = explanation(BLOCKS[0], step=2)
    assert of_explanation(late).cause == "noise"
    assert of_explanation(late, guided=True).cause == "guidance"
    assert of_explanation(late, guided=True, cached=(True, False)).cause == "cache"
    assert of_explanation(late, guided=True, cached=(False, True)).cause == "guidance"


def test_keys_and_values_unknown_on_every_rank_behind_right_tokens_are_modulated_wrongly() -> None:
    unknown = {"image_met": 0, "pads_met": 0, "foreign": 100, "doubtful": 28}
    both = tuple(line(FIRST, rank=rank, **unknown) for rank in (0, 1))
    assert of_explanation(explanation(FIRST, ledger=both)).cause == "modulation"
    assert of_explanation(explanation(FIRST, ledger=both[:1])).cause == "exchange"


def test_an_error_below_the_tolerance_that_rounding_does_not_reach_so_early_is_no_matter_of_the_gather() -> None:
    coarse = replace(explanation(), tolerance=0.1)
    slight = tuple(replace(b, error=0.03) if b.module == JOINT and b.step == 1 else b for b in coarse.blocks)
    assert of_explanation(coarse).cause == "cut/gather"
    assert of_explanation(replace(coarse, blocks=slight)).cause == "exchange"


@pytest.mark.parametrize(
    ("module", "step", "counts", "fails"),
    [
        (FIRST, 1, {"image_met": 80, "image_missing": 1}, True),
        (JOINT, 1, {"foreign": 1}, True),
        (JOINT, 1, {"masked_met": 1}, True),
        (CAPTION, 1, {"caption_met": 31, "doubtful": 1}, True),
        (JOINT, 1, {"image_met": 80, "doubtful": 1}, False),
        (FIRST, 1, {"image_duplicated": 81, "pads_met": 94}, False),  # each key twice weighs half as much
        (FIRST, 2, {"image_met": 80, "image_missing": 1}, False),
    ],
)
def test_a_passing_row_is_contradicted_by_what_the_first_step_meets(
    module: str, step: int, counts: dict[str, int], fails: bool
) -> None:
    found = contradiction(explanation(ledger=(line(module, step, 1, **counts),)))
    assert (found is not None) == fails
    if found is not None:
        assert (found.relation, found.ok) == (Relation.EXCHANGE, False)
        assert found.sentence == f"its figures pass, and step 1, {module}: said"
    assert contradiction(None) is None


def test_on_one_device_nothing_is_exchanged_or_gathered() -> None:
    for module in (FIRST, None):
        assert of_explanation(explanation(module), split=False).cause is None
    wrong = line(FIRST, rank=0, image_met=45, wrong_position=36)
    assert of_explanation(explanation(FIRST, ledger=(wrong,)), split=False).cause == "position"


CASE = Case("64x64", "nano", Size(64, 64), ("x",))
LATENTS = Bound("psnr", "latents", 100.0, "dB", "floor")
LEVELS = Bound("max-abs", "image", 1.0, "of 255", "floor", 0.0, "at most")


def row_of(inside: Explanation | None) -> Row:
    figure = Figure("psnr", "skimage", "latents", 20.0, "dB")
    exchange = Comparison(Relation.EXCHANGE, "r", "c", figures=(figure,))
    return Row(CASE, Variant("spatial", 2), comparisons=(exchange,), explanation=inside)


def test_the_verdict_keeps_the_judgement_and_what_was_seen() -> None:
    failing = [Judgement(Relation.EXCHANGE, False, "20 dB", LATENTS, 20.0)]
    found = cause.find(row_of(explanation(FIRST)), failing)
    assert found.cause == "exchange"
    assert found.evidence[0] == "exchange: 20 dB"
    assert found.headline.startswith(" Cause: exchange (first divergence: step 1, noise_refiner.0")
    plain = cause.find(row_of(None), failing)
    assert (plain.cause, plain.evidence, plain.headline) == ("split", ("exchange: 20 dB",), "")


def test_an_explanation_of_another_relation_says_nothing_of_this_one() -> None:
    other = replace(explanation(FIRST), relation=Relation.CONTROL)
    assert cause.find(row_of(other), [Judgement(Relation.EXCHANGE, False, "")]).cause == "split"


def test_right_latents_under_a_wrong_picture_are_the_decoders() -> None:
    judged = [Judgement(Relation.EXCHANGE, True, "", LATENTS), Judgement(Relation.EXCHANGE, False, "", LEVELS)]
    assert cause.find(row_of(None), judged).cause == "decode"
    assert cause.find(row_of(explanation()), judged).cause == "decode"


def test_a_failure_leaves_the_line_it_was_seen_in() -> None:
    raised = 'Traceback\n  File "a.py", line 1, in draw\n    f()\n  File "b.py", line 2, in f\n    raise\nValueError'
    assert cause.evidence_of_failure(Failure(FailureKind.RAISED, "it raised", 0, raised)) == (
        "it raised",
        'File "b.py", line 2, in f',
    )
    stacks = 'Thread 1 (most recent call first):\n  File "b.py", line 2 in gather\n  File "a.py", line 1 in draw'
    assert cause.evidence_of_failure(Failure(FailureKind.HUNG, "hung", 0, stacks))[1] == 'File "b.py", line 2 in gather'
    assert cause.evidence_of_failure(Failure(FailureKind.KILLED, "killed")) == ("killed",)
