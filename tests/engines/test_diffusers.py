"""The baseline is diffusers' own pipeline; the replay is the same, told to pad more."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import models
from harness.engines.diffusers import DiffusersEngine, padded_image_sequence
from harness.planning import cut
from harness.plugins import Drawing, Worker
from harness.types import Case, ModelSpec, RunSpec, Size, Variant

PROMPT = "a red ball left of a blue tower at night"
OWN_PADS = 15
"""144x144 has 81 image tokens; the stock pipeline pads them to 96."""


@pytest.fixture(scope="module")
def nano() -> ModelSpec:
    return models.resolve("nano")


@pytest.fixture(scope="module")
def engine(nano: ModelSpec) -> Iterator[DiffusersEngine]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a rank
    loaded = DiffusersEngine()
    loaded.load(Worker(0, 1, "cpu", nano.path, "float32"))
    yield loaded
    torch.set_num_threads(threads)


def case(size: str = "144x144", prompts: tuple[str, ...] = (PROMPT,), **fields: Any) -> Case:
    return Case("c", "nano", Size.parse(size), prompts, **{"steps": 2, **fields})


def draw(engine: DiffusersEngine, drawn: Case, pads: int | None = None) -> Drawing:
    return engine.draw(RunSpec(drawn, "diffusers", "", "w", "test", image_pad_tokens=pads))


@pytest.fixture(scope="module")
def baseline(engine: DiffusersEngine) -> Drawing:
    return draw(engine, case())


def test_the_baseline_is_the_pipeline_itself(nano: ModelSpec, engine: DiffusersEngine) -> None:
    import torch
    from diffusers import ZImagePipeline

    prompts, negative = (PROMPT, "a boat"), ("fog", "rain")
    drawn = case(
        "144x112",
        prompts,
        negative_prompts=negative,
        guidance_scale=2.0,
        num_images_per_prompt=2,
        seed=7,
    )
    drawing = draw(engine, drawn)
    stock = ZImagePipeline.from_pretrained(nano.path, dtype=torch.float32, local_files_only=True)
    stock.set_progress_bar_config(disable=True)

    def call(output_type: str) -> Any:
        return stock(
            prompt=list(prompts),
            negative_prompt=list(negative),
            width=144,
            height=112,
            num_inference_steps=2,
            guidance_scale=2.0,
            num_images_per_prompt=2,
            generator=torch.Generator("cpu").manual_seed(7),
            output_type=output_type,
        ).images

    assert np.array_equal(drawing.latents, call("latent").float().numpy())
    images = call("pil")
    assert len(images) == len(drawing.images) == 4
    for own, theirs in zip(drawing.images, images, strict=True):
        assert np.array_equal(np.asarray(own), np.asarray(theirs))


def test_a_drawing_has_all_that_an_engine_owes(engine: DiffusersEngine, nano: ModelSpec) -> None:
    prompts = (PROMPT, "a boat")
    steps: list[int] = []
    engine.worker.progress = steps.append
    drawing = draw(engine, case("144x112", prompts, steps=3, guidance_scale=1.5, negative_prompts=("", "")))
    engine.worker.progress = lambda step: None
    assert steps == [1, 2, 3]
    assert [image.size for image in drawing.images] == [(144, 112)] * 2
    assert drawing.latents.shape == (2, 16, 14, 18)
    assert drawing.trajectory.shape == (3, 2, 16, 14, 18)
    assert drawing.latents.dtype == drawing.trajectory.dtype == np.float32
    assert np.array_equal(drawing.trajectory[-1], drawing.latents)
    times = drawing.times
    assert len(times.steps_s) == 3
    assert min(times.text_s, times.decode_s, *times.steps_s) > 0
    assert times.total_s == pytest.approx(times.text_s + times.decode_s + sum(times.steps_s), abs=0.05)

    tokenizer = engine.pipeline.tokenizer
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for prompt in prompts
    ]
    assert drawing.caption_tokens == tuple(len(tokenizer(chat).input_ids) for chat in chats)


def test_a_replay_with_the_pipelines_own_pads_is_the_pipeline(engine: DiffusersEngine, baseline: Drawing) -> None:
    replay = draw(engine, case(), OWN_PADS)
    assert np.array_equal(replay.trajectory, baseline.trajectory)
    assert np.array_equal(np.asarray(replay.images[0]), np.asarray(baseline.images[0]))


def test_so_it_is_with_guidance_batches_and_captions_of_different_buckets(engine: DiffusersEngine) -> None:
    """Here the pipeline masks: sequences of one batch differ in length."""
    several = case(
        "144x112",
        (PROMPT, PROMPT * 5),
        negative_prompts=("", PROMPT * 3),
        guidance_scale=2.0,
    )
    own = cut.pads_of(several.size.tokens)
    stock = draw(engine, several)
    assert len({-(-tokens // 32) for tokens in stock.caption_tokens}) == 2
    assert np.array_equal(draw(engine, several, own).latents, stock.latents)
    assert not np.array_equal(draw(engine, several, own + 32).latents, stock.latents)


def test_more_pads_change_the_picture_and_the_next_run_knows_nothing_of_it(
    engine: DiffusersEngine, baseline: Drawing
) -> None:
    padded = draw(engine, case(), OWN_PADS + 32)
    assert padded.latents.shape == baseline.latents.shape
    assert not np.array_equal(padded.latents, baseline.latents)
    assert "_pad_with_ids" not in vars(engine.pipeline.transformer)
    assert np.array_equal(draw(engine, case()).latents, baseline.latents)


def test_fewer_pads_than_the_pipelines_own_are_refused(engine: DiffusersEngine, baseline: Drawing) -> None:
    with pytest.raises(ValueError, match="pads with 15 tokens, more than the 14 asked for"):
        draw(engine, case(), OWN_PADS - 1)
    assert "_pad_with_ids" not in vars(engine.pipeline.transformer)
    assert not engine.pipeline.text_encoder._forward_hooks
    assert np.array_equal(draw(engine, case()).latents, baseline.latents)


def test_the_number_of_pads_is_the_one_asked_for(engine: DiffusersEngine) -> None:
    """Counted where the pipeline places them: image pads stand at (0, 0, 0), captions are left alone."""
    import torch

    transformer = engine.pipeline.transformer
    stock = transformer._pad_with_ids
    image = (torch.zeros(81, 4), (1, 9, 9), (33, 0, 0), torch.device("cpu"))
    caption = (torch.zeros(20, 4), (20, 1, 1), (1, 0, 0), torch.device("cpu"))
    with padded_image_sequence(transformer, 47):
        features, positions, pad_mask, total, _ = transformer._pad_with_ids(*image)
        assert transformer._pad_with_ids(*caption)[3] == stock(*caption)[3] == 32
    assert len(features) == len(positions) == len(pad_mask) == total == 128
    assert int(pad_mask.sum()) == 47
    assert not positions[81:].any()
    with padded_image_sequence(transformer, None):
        assert transformer._pad_with_ids == stock


@pytest.mark.parametrize("pads", [None, 47], ids=["baseline", "replay"])
def test_tokens_in_reverse_order_draw_the_same_but_for_rounding(
    engine: DiffusersEngine, baseline: Drawing, pads: int | None
) -> None:
    fields = {"guidance_scale": 2.0, "negative_prompts": ("a " * 40,)}
    for drawn in (case(), case(**fields)):
        spec = RunSpec(drawn, "diffusers", "", "w", "test", image_pad_tokens=pads)
        native = engine.draw(spec).latents
        reordered = engine.draw(replace(spec, token_order="reversed")).latents
        assert not np.array_equal(native, reordered)
        # float32 at values of order one; a token out of place is off by 0.1 and more
        assert np.abs(native - reordered).max() < 1e-4
    others = [
        engine.draw(replace(spec, token_order=order)).latents for order in ("columns", "shuffled-1", "shuffled-2")
    ]
    assert all(np.abs(native - other).max() < 1e-4 for other in others)
    assert len({latents.tobytes() for latents in (native, reordered, *others)}) == 5
    assert np.array_equal(draw(engine, case()).latents, baseline.latents)


def test_limits_say_why() -> None:
    model = ModelSpec("nano", "", "w", num_heads=6)
    assert DiffusersEngine.limits(case(), Variant("diffusers", axis="none"), model) is None
    assert "one device" in (DiffusersEngine.limits(case(), Variant("diffusers", ulysses=2), model) or "")
    assert DiffusersEngine.faults() == ()
