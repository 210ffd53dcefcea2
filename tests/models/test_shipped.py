"""The trained model draws what the prompt says, and the full-size one is made where it draws."""

from typing import Any

import numpy as np
import pytest

from harness import models
from harness.models import full_size
from harness.models.z_image import load_pipeline


@pytest.fixture(scope="module")
def trained() -> Any:
    return load_pipeline(str(models.SHIPPED), "float32", "cpu")


def draw(pipeline: Any, prompt: str, width: int = 320, height: int = 176) -> Any:
    """Picture as float ``H,W,3`` between 0 and 1, drawn by the stock pipeline in 4 steps."""
    import torch

    picture = pipeline(
        prompt=prompt, width=width, height=height, num_inference_steps=4, guidance_scale=0.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip
    return np.asarray(picture, dtype=float) / 255


def blue(picture: Any, left: float, right: float) -> float:
    """How much bluer than red the objects' band of the picture is, between two fractions of its width."""
    height, width = picture.shape[:2]
    band = picture[int(0.6 * height) : int(0.85 * height), int(left * width) : int(right * width)]
    return float((band[..., 2] - band[..., 0]).mean())


@pytest.mark.parametrize(("width", "height"), [(320, 176), (176, 320), (240, 240)])
def test_colours_stand_on_their_sides(trained: Any, width: int, height: int) -> None:
    picture = draw(trained, "a red house left and a blue boat right on tiles at day", width, height)
    swapped = draw(trained, "a blue house left and a red boat right on tiles at day", width, height)
    assert blue(picture, 0.6, 1) > blue(picture, 0, 0.4) + 0.05
    assert blue(swapped, 0, 0.4) > blue(swapped, 0.6, 1) + 0.05


def test_night_is_dark_and_grass_is_green(trained: Any) -> None:
    day, night = (draw(trained, f"a red cube left on grass at {time}") for time in ("day", "night"))
    assert night.mean() < day.mean() - 0.2
    ground = day[-20:, 200:].mean(axis=(0, 1))
    assert ground[1] > ground[0] + 0.1
    assert ground[1] > ground[2] + 0.1


def test_the_full_size_path_draws_at_a_small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"dim": 128, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [16, 24, 24], "n_layers": 1, "cap_feat_dim": 64}
    encoder = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    make = full_size.make
    monkeypatch.setattr(
        full_size,
        "make",
        lambda dtype, device: make(
            dtype, device, full_size.TRANSFORMER | small, (32, 32, 32, 32), full_size.ENCODER | encoder
        ),
    )
    load_pipeline.cache_clear()
    drawn = []
    for _ in range(2):
        pipeline = load_pipeline(full_size.PATH, "bfloat16", "cpu")
        assert {str(p.dtype) for p in pipeline.transformer.parameters()} == {"torch.bfloat16"}
        assert not pipeline.vae.training
        drawn.append(draw(pipeline, "a red ball", 64, 48))
        load_pipeline.cache_clear()
    assert (drawn[0] == drawn[1]).all()


def test_the_full_size_model_has_the_released_models_parameters() -> None:
    import torch
    from diffusers import ZImageTransformer2DModel

    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(**full_size.TRANSFORMER)
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(6.15e9, rel=0.01)
