"""The batched forward is diffusers' own; a stopped run goes on as if it had not been; the export loads."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from train import dit, export, text, vae
from train.forward import forward

TINY: dict[str, Any] = {"dim": 48, "n_layers": 1, "n_refiner_layers": 1, "axes_dims": [4, 2, 2]}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks of the same form that take a blink."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    build = dit.build
    monkeypatch.setattr(dit, "build", lambda: build(**TINY))
    monkeypatch.setattr(dit, "size_at", lambda rng, progress: rng.choice([(5, 4), (4, 7)]))
    monkeypatch.setattr(vae, "SIZES", ((96, 64), (128, 192)))
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("width", "height"), [(8, 4), (11, 9)])
def test_batched_forward_equals_diffusers(tiny: None, width: int, height: int) -> None:
    torch.manual_seed(0)
    model = dit.build().eval()
    for name, parameter in model.named_parameters():
        if "adaLN" in name or "final" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    latents, t = torch.randn(3, 16, 2 * height, 2 * width), torch.tensor([0.0, 0.3, 0.9])
    prompts = [text.prompt_in_bucket(random.Random(seed), 64)[1] for seed in range(3)]
    ids, lengths = text.padded(prompts, 64)
    captions = text.features(ids, lengths)
    with torch.no_grad():
        ours = forward(model, latents, t, captions, lengths)
        listed = [caption[:length] for caption, length in zip(captions, lengths, strict=True)]
        theirs = model(list(latents[:, :, None].unbind()), t, listed, return_dict=False)[0]
    torch.testing.assert_close(ours, torch.stack(theirs)[:, :, 0], rtol=1e-5, atol=1e-5)


def test_features_are_the_pipelines(tiny: None) -> None:
    from diffusers import ZImagePipeline

    prompt = "a red house left and a blue boat right on grass at night"
    model = text.encoder("cpu")
    theirs = ZImagePipeline._encode_prompt(
        type("Parts", (), {"tokenizer": text.tokenizer(), "text_encoder": model})(), [prompt], device="cpu"
    )[0]
    ids, lengths = text.padded([text.token_ids(prompt)], 32)
    torch.testing.assert_close(text.features(ids, lengths)[0, : lengths[0]], theirs, rtol=1e-5, atol=1e-5)


def test_a_stopped_run_goes_on_to_the_last_bit(tiny: None, tmp_path: Path) -> None:
    coder = vae.build((8, 8, 8, 8))

    def trainee() -> dit.DitTrainee:
        return dit.DitTrainee(coder, "cpu", seed=1, steps=5, tokens=100)

    whole = trainee()
    while whole.step < 5:
        whole.advance()
    first = trainee()
    for _ in range(3):  # in the middle of a batch that serves two steps
        first.advance()
    first.save(tmp_path)
    second = trainee()
    assert second.resume(tmp_path)
    assert second.run(tmp_path, every=1)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert one.equal(other)
    for one, other in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert one.equal(other)
    assert (tmp_path / "dit.csv").read_text().splitlines()[-1].startswith("5,")


def test_the_autoencoder_is_finished_with_latents_of_spread_one(tiny: None) -> None:
    torch.manual_seed(0)
    coder = vae.build((8, 8, 8, 8))
    pixels = vae.pictures(0, 0, "cpu", 20_000)
    with torch.no_grad():
        before = vae.decode(coder, vae.encode(coder, pixels))
        vae.finish(coder, "cpu", 0, pixels=20_000)
        after = vae.decode(coder, vae.encode(coder, pixels))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    assert 0.2 < float(vae.encode(coder, pixels).detach().std()) < 3


def test_the_export_is_a_checkpoint(tiny: None, tmp_path: Path) -> None:
    from harness import models
    from harness.models.z_image import load_pipeline

    export.write(dit.build(), vae.build((8, 8, 8, 8)), tmp_path)
    assert models.resolve(str(tmp_path)).num_heads == 6
    pipeline = load_pipeline(str(tmp_path), "float32", "cpu")
    picture = pipeline("a red ball", height=32, width=48, num_inference_steps=1, guidance_scale=0.0).images[0]
    assert picture.size == (48, 32)
