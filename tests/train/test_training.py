"""The batched forward is diffusers' own; a stopped run goes on as if it had not been; the export loads."""

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests import forking
from train import dit, export, run, text, vae
from train.__main__ import main
from train.forward import forward
from train.state import Schedule

TINY: dict[str, Any] = {"dim": 48, "n_layers": 1, "n_refiner_layers": 1, "axes_dims": [4, 2, 2]}
TWO = f"""
import os, sys, torch
from pathlib import Path
from train import dit, together, vae
from train.state import Schedule

torch.set_num_threads(1)
build = dit.build
dit.build = lambda: build(**{TINY!r})
dit.size_at = lambda rng, progress: (5, 4)

def trained(seed):
    trainee = dit.DitTrainee(vae.build((8, 8, 8, 8)), "cpu", seed, Schedule(3), tokens=100)
    while trainee.step < 3:
        trainee.advance()
    return trainee

folder = Path(sys.argv[1])
torch.manual_seed(0)
if os.environ["RANK"] == "0":
    torch.save(trained(1).model.state_dict(), folder / "alone.pt")
together.begin("cpu")
both = trained(1)
torch.save({{"seed": both.seed, "model": both.model.state_dict()}}, folder / f"rank-{{together.rank()}}.pt")
together.end()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks of the same form that take a blink."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    build = dit.build
    monkeypatch.setattr(dit, "build", lambda: build(**TINY))
    monkeypatch.setattr(dit, "size_at", lambda rng, progress: rng.choice([(5, 4), (4, 7)]))
    monkeypatch.setattr(vae, "SIZES", ((96, 64), (128, 192)))
    monkeypatch.setattr(run, "HELD_OUT_SIZES", ((96, 64),))
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
    with torch.no_grad():
        captions = text.features(text.build_encoder(), ids, lengths)
        ours = forward(model, latents, t, captions, lengths)
        listed = [caption[:length] for caption, length in zip(captions, lengths, strict=True)]
        theirs = model(list(latents[:, :, None].unbind()), t, listed, return_dict=False)[0]
    torch.testing.assert_close(ours, torch.stack(theirs)[:, :, 0], rtol=1e-5, atol=1e-5)


def test_features_are_the_pipelines(tiny: None) -> None:
    from diffusers import ZImagePipeline

    prompt = "a red house left and a blue boat right on grass at night"
    model = text.build_encoder()
    theirs = ZImagePipeline._encode_prompt(
        type("Parts", (), {"tokenizer": text.tokenizer(), "text_encoder": model})(), [prompt], device="cpu"
    )[0]
    ids, lengths = text.padded([text.token_ids(prompt)], 32)
    ours = text.features(model, ids, lengths)[0, : lengths[0]]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_stopped_run_goes_on_to_the_last_bit(tiny: None, tmp_path: Path) -> None:
    coder = vae.build((8, 8, 8, 8))

    def trainee() -> dit.DitTrainee:
        return dit.DitTrainee(coder, "cpu", seed=1, schedule=Schedule(5), tokens=100)

    whole = trainee()
    while whole.step < 5:
        whole.advance()
    first = trainee()
    for _ in range(3):  # in the middle of a block of steps that share batches
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
    pixels = vae.pictures(0, 0, "cpu", 20_000)[0]
    with torch.no_grad():
        before = vae.decode(coder, vae.encode(coder, pixels))
        vae.finish(coder, "cpu", 0, pixels=20_000)
        after = vae.decode(coder, vae.encode(coder, pixels))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)
    assert 0.2 < float(vae.encode(coder, pixels).detach().std()) < 3


def test_the_export_is_a_checkpoint(tiny: None, tmp_path: Path) -> None:
    from harness import models
    from harness.models.z_image import load_pipeline

    export.write(dit.Painter(), vae.build((8, 8, 8, 8)), tmp_path)
    assert models.resolve(str(tmp_path)).num_heads == 6
    pipeline = load_pipeline(str(tmp_path), "float32", "cpu")
    picture = pipeline("a red ball", height=32, width=48, num_inference_steps=1, guidance_scale=0.0).images[0]
    assert picture.size == (48, 32)


def test_two_processes_train_as_one_with_both_their_batches(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    shared = {**os.environ, "PYTHONPATH": str(root), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    logs = [tmp_path / f"log-{rank}.txt" for rank in range(2)]
    processes = [  # as torchrun starts them
        forking.Script(
            ["python", str(script), str(tmp_path)], {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log
        )
        for rank, log in enumerate(logs)
    ]
    codes = [process.wait(120) for process in processes]
    assert codes == [0, 0], [log.read_text() for log in logs]
    one, other = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["seed"] != other["seed"]
    for name, weight in one["model"].items():
        assert weight.equal(other["model"][name]), name
    # Alone, a process steps along its own gradient and ends elsewhere.
    alone = torch.load(tmp_path / "alone.pt", weights_only=True)
    assert any(not weight.equal(one["model"][name]) for name, weight in alone.items())


def test_a_run_goes_on_from_a_checkpoint(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = dit.Painter()
    with torch.no_grad():
        for parameter in started.parameters():
            parameter.copy_(parameter.half())  # as it will be shipped
    export.write(started, vae.build((8, 8, 8, 8)), tmp_path / "first")
    plan = run.Plan(
        tmp_path / "work", tmp_path / "second", "cpu", dit_steps=2, vae_steps=0, tokens=30, start=tmp_path / "first"
    )
    assert run.run(plan)
    assert "complete" in capsys.readouterr().out
    trained = run._painter(vae.build((8, 8, 8, 8)), plan, 0.0).model
    changed = {name for name, weight in started.state_dict().items() if not weight.equal(trained.state_dict()[name])}
    assert any(name.startswith("transformer") for name in changed)
    assert any(name.startswith("text_encoder") for name in changed)
    # Two steps of a rate that has hardly risen cannot have led far from where it started.
    for name, weight in started.state_dict().items():
        assert float((weight - trained.state_dict()[name]).abs().max()) < 1e-3, name


def test_by_the_clock_a_run_is_over_when_the_time_is(tiny: None) -> None:
    now = time.time()
    late = dit.DitTrainee(vae.build((8, 8, 8, 8)), "cpu", seed=1, schedule=Schedule(9, now - 10, now), tokens=100)
    late.advance()
    assert late.complete()
    early = dit.DitTrainee(vae.build((8, 8, 8, 8)), "cpu", seed=1, schedule=Schedule(1, now, now + 1e6), tokens=100)
    early.advance()
    assert not early.complete()
    assert early.rate() > late.rate()


def test_errors_on_things_count_more(tiny: None) -> None:
    trainee = dit.DitTrainee(vae.build((8, 8, 8, 8)), "cpu", seed=1, schedule=Schedule(5), tokens=100)
    weights = trainee._slice(0).weights
    assert float(weights.mean()) == pytest.approx(1, abs=0.2)  # one over the batch, of which this is a part
    assert float(weights.max() / weights.min()) == pytest.approx(1 + dit.ON_THINGS)


def test_half_of_the_pictures_are_recoloured_channel_by_channel() -> None:
    real = torch.rand(40, 3, 2, 2) * 2 - 1
    drawn = vae.recoloured(real, torch.Generator().manual_seed(0))
    kept = [one.equal(other) for one, other in zip(drawn, real, strict=True)]
    assert 10 < sum(kept) < 30
    for one, other in zip(drawn, real, strict=True):
        for channel in one:
            # Each channel is one of the picture's own, faded.
            ratios = [(channel / source).unique() for source in other]
            assert any(float(r.max() - r.min()) < 1e-5 and 0.39 < float(r[0]) <= 1 + 1e-5 for r in ratios)


def test_no_autoencoder_to_train_and_none_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--work", str(tmp_path / "work"), "--export", str(tmp_path / "out"), "--vae-steps", "0"])
    assert ended.value.code == 2
    assert "--vae-steps 0 takes the autoencoder of --checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_who_has_no_time_left_leaves_the_others(tiny: None, tmp_path: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert not run.run(run.Plan(tmp_path / "work", tmp_path / "out", "cpu", minutes=0, pixels=20_000))
        assert not dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
