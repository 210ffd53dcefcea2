"""Loading: the built folder is a checkpoint like any other."""

from pathlib import Path
from typing import Any

import pytest

from harness.errors import InfrastructureError
from harness.models.z_image import load_pipeline


def test_diffusers_alone_loads_the_folder_and_draws(nano_folder: Path, pipeline: Any) -> None:
    import torch
    from diffusers import ZImagePipeline

    stock = ZImagePipeline.from_pretrained(nano_folder)
    stock.set_progress_bar_config(disable=True)

    def draw(one: Any) -> Any:
        return one(
            prompt="a red ball", height=64, width=96, num_inference_steps=2, guidance_scale=0.0,
            generator=torch.Generator().manual_seed(1), output_type="np",
        ).images  # fmt: skip

    picture = draw(stock)
    assert picture.shape == (1, 64, 96, 3)
    assert picture.std() > 0.05
    assert (draw(pipeline) == picture).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_networks_are_ready_in_the_asked_dtype(nano_folder: Path, dtype: Any) -> None:
    import torch

    pipeline = load_pipeline(str(nano_folder), dtype, "cpu")
    for network in (pipeline.text_encoder, pipeline.transformer, pipeline.vae):
        assert {p.dtype for p in network.parameters()} == {getattr(torch, dtype)}
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    assert pipeline.device.type == "cpu"


def test_the_progress_bar_is_off(pipeline: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pipeline.progress_bar(total=1) as bar:
        bar.update()
    assert capfd.readouterr().err == ""


def test_an_absent_gpu_is_said_in_words(nano_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InfrastructureError, match="no CUDA device"):
        load_pipeline(str(nano_folder), "float32", "cuda")


def test_pickled_weights_are_not_loaded(nano_folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(nano_folder, tmp_path / "copy"))
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(OSError, match="safetensors"):
        load_pipeline(str(copy), "float32", "cpu")
