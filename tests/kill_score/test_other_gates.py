"""The gates of other projects, on pictures whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.kill_score import other_gates
from harness.runs.sample import Sample

SIDE = 176


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray:
    """A smooth picture within 50 to 200, so that an offset is not clipped."""
    waves = np.random.default_rng(seed).uniform(0.02, 0.1, (2, 3))
    y, x = (grid[..., None] for grid in np.mgrid[:side, :side])
    return (125 + 75 * np.sin(waves[0] * x + waves[1] * y)).round().astype(np.uint8)


def sample(*images: np.ndarray, latents: float = 0.0) -> Sample:
    return Sample("key", images, np.full((len(images), 4, 2, 2), latents, np.float32))


def test_equal_pictures_pass_every_gate():
    same = sample(picture())
    assert set(other_gates.ask(same, same).words.values()) == {"passes"}
    figures = other_gates.measure(same, same)
    assert math.isinf(figures["PSNR"])
    assert figures["SSIM"] == pytest.approx(1)
    assert figures["MS-SSIM"] == pytest.approx(1)
    assert (figures["MAD"], figures["mean"], figures["p99"], figures["latents"]) == (0, 0, 0, 0)


def test_an_offset_is_measured_in_the_units_of_each_gate():
    figures = other_gates.measure(sample(picture()), sample(picture() + 10, latents=0.5))
    assert figures["PSNR"] == pytest.approx(20 * math.log10(25.5))
    assert figures["MAD"] == 10
    assert figures["mean"] == pytest.approx(10 / 255)
    assert figures["p99"] == pytest.approx(10 / 255)
    assert figures["latents"] == 0.5


def test_of_several_pictures_the_worst_counts():
    figures = other_gates.measure(sample(picture(), picture(1)), sample(picture(), picture(1) + 3))
    assert figures["MAD"] == 3
    assert math.isfinite(figures["PSNR"])


@pytest.mark.parametrize(
    ("gate", "figures", "word"),
    [
        ("SGLang, Z-Image", {"PSNR": 30.0, "SSIM": 0.95, "MAD": 4.0}, "passes"),
        ("SGLang, Z-Image", {"PSNR": 29.9, "SSIM": 0.95, "MAD": 4.0}, "fails"),
        ("SGLang, Z-Image", {"PSNR": 30.0, "SSIM": 0.949, "MAD": 4.0}, "fails"),
        ("SGLang, Z-Image", {"PSNR": 30.0, "SSIM": 0.95, "MAD": 4.1}, "fails"),
        ("SGLang, default", {"PSNR": 28.0, "SSIM": 0.95, "MAD": 8.0}, "passes"),
        ("SGLang, default", {"PSNR": 28.0, "SSIM": 0.95, "MAD": 8.1}, "fails"),
        ("FastVideo, .70", {"MS-SSIM": 0.70}, "passes"),
        ("FastVideo, .98", {"MS-SSIM": 0.97}, "fails"),
        ("FastVideo, .98", {"MS-SSIM": None}, "n/a"),
        ("vllm-omni", {"mean": 0.03, "p99": 0.25}, "passes"),
        ("vllm-omni", {"mean": 0.03, "p99": 0.26}, "fails"),
        ("diffusers", {"latents": 1e-4}, "passes"),
        ("diffusers", {"latents": 1.1e-4}, "fails"),
    ],
)
def test_limits_are_those_of_the_projects(gate: str, figures: dict[str, float | None], word: str):
    (known,) = [each for each in other_gates.GATES if each.name == gate]
    assert known.word(figures) == word


def test_ms_ssim_wants_sides_of_161_px():
    assert other_gates.ms_ssim(picture(side=160), picture(side=160)) is None
    assert other_gates.ms_ssim(picture(side=161), picture(side=161)) == pytest.approx(1)


def test_ms_ssim_falls_with_noise_and_never_below_zero():
    noise = np.random.default_rng(0).normal(0, 1, picture().shape)
    noisy = [np.clip(picture() + sigma * noise, 0, 255).astype(np.uint8) for sigma in (5, 40)]
    little, much = (other_gates.ms_ssim(picture(), each) for each in noisy)
    assert 1 > little > much > 0
    assert other_gates.ms_ssim(picture(), 255 - picture()) == 0


def test_a_missing_picture_and_another_size_fail_every_gate():
    known = sample(picture())
    assert set(other_gates.ask(known, None).words.values()) == {"fails"}
    assert set(other_gates.ask(known, sample(picture(side=192))).words.values()) == {"fails"}


def test_a_gate_that_needs_a_model_is_named_as_left_out():
    assert any("CLIP" in gate for gate in other_gates.LEFT_OUT)
