"""The random model: the same bytes everywhere, and a network that reacts to what SP can get wrong."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROMPT = "a red ball left of a blue tower at night"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_processes_build_the_same_bytes_at_the_same_time(nano_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness import models\n"
        "[models.build('nano-random', Path(folder)) for folder in sys.argv[1:]]"
    )
    # Both race for one folder, under another hash seed and thread count, then each fills one of its own.
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "shared"), str(tmp_path / own)],
            env={**os.environ, "PYTHONHASHSEED": own, "OMP_NUM_THREADS": own},
        )
        for own in ("1", "2")
    ]
    assert [builder.wait(timeout=60) for builder in builders] == [0, 0]
    expected = contents(nano_folder)
    assert "transformer/diffusion_pytorch_model.safetensors" in expected
    for name in ("shared", "1", "2"):
        assert contents(tmp_path / name) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "shared"]


def test_random_numbers_come_from_integers_alone() -> None:
    from harness.models.nano_weights import bell

    # Written down once: a change of these is a change of every golden output.
    assert [float(x).hex() for x in bell("probe", (3,))] == [
        "-0x1.b796ce1906a21p-2",
        "0x1.cc4ae16b1a995p-6",
        "0x1.2cae11e788895p+0",
    ]
    many = bell("many", (200_000,), std=2.0)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 2.0) < 0.02
    assert not np.array_equal(bell("a", (8,)), bell("b", (8,)))


def test_it_has_the_architecture_of_the_released_model(pipeline: Any) -> None:
    config = pipeline.transformer.config
    assert (config.n_heads, config.n_kv_heads, config.dim, config.n_layers, config.n_refiner_layers) == (
        6,
        6,
        192,
        4,
        2,
    )
    assert config.dim // config.n_heads == sum(config.axes_dims) == 32
    assert (pipeline.vae.config.latent_channels, pipeline.vae_scale_factor) == (16, 8)
    assert (pipeline.scheduler.config.shift, pipeline.scheduler.config.use_dynamic_shifting) == (3.0, False)
    assert type(pipeline.text_encoder).__name__ == "Qwen3Model"
    for pad in (pipeline.transformer.x_pad_token, pipeline.transformer.cap_pad_token):
        assert 0.8 < float(pad.std()) < 1.2


def test_the_tokenizer_takes_any_text(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    assert tokenizer.is_fast
    for text in (PROMPT, "Größe 漢字 🦊 ../<b>\"'\\", "\x00\t\r\n", "a" * 10_000):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
        padded = tokenizer(text, padding="max_length", max_length=512, truncation=True)
        assert len(padded.input_ids) == 512
    assert len(tokenizer(" red ball").input_ids) == 2


def test_the_chat_template_knows_thinking(pipeline: Any) -> None:
    def chat(**options: bool) -> str:
        message = [{"role": "user", "content": "hi"}]
        return str(pipeline.tokenizer.apply_chat_template(message, tokenize=False, **options))

    asked = "<|im_start|>user\nhi<|im_end|>\n"
    assert chat() == asked
    assert chat(add_generation_prompt=True, enable_thinking=True) == asked + "<|im_start|>assistant\n"
    assert chat(add_generation_prompt=True, enable_thinking=False).endswith("assistant\n<think>\n\n</think>\n\n")
    ids = pipeline.tokenizer(asked).input_ids
    assert pipeline.tokenizer.convert_ids_to_tokens(ids[:2]) == ["<|im_start|>", "user"]


# ---------------------------------------------------------------- behaviour; figures in harness/models/nano_weights.py


@pytest.fixture(scope="module")
def draw(pipeline: Any) -> Callable[..., Any]:
    """Final latents of a 256x256 picture as float32 ``16,32,32``; all steps if a list is given."""
    import torch

    def draw(prompt: str = PROMPT, noise: Any = None, steps: list[Any] | None = None) -> Any:
        def keep(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if steps is not None:
                steps.append(tensors["latents"].clone())
            return tensors

        latents = torch.clone(start() if noise is None else noise)
        drawn = pipeline(
            prompt=prompt, height=256, width=256, num_inference_steps=4, guidance_scale=0.0, latents=latents,
            output_type="latent", callback_on_step_end=keep,
        )  # fmt: skip
        return drawn.images[0]

    return draw


def start() -> Any:
    import torch

    return torch.randn(1, 16, 32, 32, generator=torch.Generator().manual_seed(0))


def psnr_db(reference: Any, candidate: Any) -> float:
    span = float(reference.max() - reference.min())
    return 20 * math.log10(span) - 10 * math.log10(float(((reference - candidate) ** 2).mean()))


def test_a_word_and_the_order_of_words_show(draw: Callable[..., Any]) -> None:
    reference = draw()
    assert psnr_db(reference, draw("a red ball left of a green tower at night")) < 35
    assert psnr_db(reference, draw("a blue ball left of a red tower at night")) < 35


def test_the_place_of_an_image_token_shows(draw: Callable[..., Any]) -> None:
    import torch

    rolled_back = torch.roll(draw(noise=torch.roll(start(), 16, dims=3)), -16, dims=2)
    assert psnr_db(draw(), rolled_back) < 35


def test_rounding_is_not_amplified(draw: Callable[..., Any]) -> None:
    import torch

    noise = start()
    nudge = torch.randn(noise.shape, generator=torch.Generator().manual_seed(9))
    nudged = noise + 1e-6 * noise.norm() / nudge.norm() * nudge
    reference = draw(noise=noise)
    moved = float((draw(noise=nudged) - reference).norm() / reference.norm())
    assert 1e-7 < moved < 1e-5


def test_latents_stay_of_order_one_and_every_step_moves_them(draw: Callable[..., Any]) -> None:
    steps: list[Any] = []
    final = draw(steps=steps)
    assert len(steps) == 4
    assert all(0.5 < float(latents.std()) < 1.5 for latents in steps)
    assert float(final.abs().max()) < 6
    for before, after in zip([start(), *steps], steps, strict=False):
        assert float((after - before).std()) > 0.05


def test_attention_is_not_flat(draw: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    entropies: list[float] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def spy(*args: Any, **named: Any) -> Any:
        query, key = (named["query"], named["key"]) if "query" in named else args[:2]
        if query.shape[1] == 6 and key.shape[2] == 288:
            scores = (query @ key.transpose(-1, -2) / math.sqrt(32)).log_softmax(-1)
            entropies.extend((-(scores.exp() * scores).sum(-1)).mean(dim=(0, 2)).tolist())
        return attention(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    draw()
    assert len(entropies) == 4 * 4 * 6
    assert max(entropies) < math.log(288) - 0.7
    assert np.mean(entropies) < math.log(288) - 1.2


@pytest.mark.parametrize("prompt", [PROMPT, ""])
def test_the_picture_has_colour_and_structure(pipeline: Any, draw: Callable[..., Any], prompt: str) -> None:
    import torch

    latents = draw(prompt)[None] / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents, return_dict=False)[0]
    picture = pipeline.image_processor.postprocess(decoded, output_type="pil")[0]
    values = np.asarray(picture).astype(float)
    assert 40 < values.std() < 60
    assert ((values == 0) | (values == 255)).mean() < 0.05
    assert all(values[..., channel].std() > 15 for channel in range(3))
    assert np.abs(values.mean(axis=2, keepdims=True) - values).mean() > 10
    # Areas, not grain: neighbours differ far less than the picture spreads.
    assert np.abs(np.diff(values, axis=1)).mean() < 0.1 * values.std()
