"""SGLang's engine as far as it goes without SGLang: refusals, the view, settings, the plan, pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness import models
from harness.engines import _cache, _sglang_releases
from harness.engines._sglang_view import sglang_view
from harness.engines.sglang import SglangEngine, _cache_environment, _check_plan, _pictures
from harness.planning.cut import choose_axis
from harness.types import Case, Size, Variant

CASE = Case("144x144", "nano", Size(144, 144), ("a red ball",))
PLAN = choose_axis(CASE.size, 2).chosen
OWN = {"shard_axis": "h", "shard_sizes_tok": [5, 4], "img_seq_target": 64}


@pytest.mark.parametrize(
    ("case", "variant", "model", "reason"),
    [
        (CASE, Variant("sglang", ring=2), "nano", "ring attention refuses torch's SDPA"),
        (CASE, Variant("sglang", ulysses=4), "nano", "degree 4 does not divide the 6 heads of nano"),
        (CASE, Variant("sglang"), "z-image-random", "reads a checkpoint from a folder, and z-image-random has none"),
    ],
)
def test_what_it_refuses_is_a_sentence(case: Case, variant: Variant, model: str, reason: str) -> None:
    limit = SglangEngine.limits(case, variant, models.resolve(model))
    assert limit is not None
    assert reason in limit


def test_the_view_shows_the_checkpoint_with_the_keys_that_sglang_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path))
    view = sglang_view(models.SHIPPED)
    assert "z-image" in view.name.lower()  # by which SGLang knows the family
    assert "_diffusers_version" in json.loads((view / "model_index.json").read_text())
    config = json.loads((view / "transformer" / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_layers"]) == (config["n_heads"], config["n_layers"]) == (6, 4)
    for file in models.SHIPPED.rglob("*.safetensors"):
        assert (view / file.relative_to(models.SHIPPED)).samefile(file)
    assert sglang_view(models.SHIPPED) == view


def test_cache_settings_are_written_as_sglang_reads_them() -> None:
    environment = _cache_environment(_cache.CacheSettings.of({"cache_mask": "110100"}, 6))
    assert environment["SGLANG_CACHE_DIT_ENABLED"] == "true"
    assert environment["SGLANG_CACHE_DIT_SCM_COMPUTE_BINS"] == "2,1"
    assert environment["SGLANG_CACHE_DIT_SCM_CACHE_BINS"] == "1,2"
    threshold = _cache_environment(_cache.CacheSettings.of({"cache_threshold": 0.3}, 6))
    assert threshold["SGLANG_CACHE_DIT_RDT"] == "0.3"
    assert not any("SCM" in name for name in threshold)


@pytest.mark.parametrize(
    "changed",
    [{"shard_axis": "w"}, {"shard_sizes_tok": [4, 5]}, {"img_seq_target": 96}],
    ids=lambda changed: str(changed),
)
def test_a_plan_unlike_the_replays_is_an_error(changed: dict[str, object]) -> None:
    _check_plan(OWN, PLAN)
    with pytest.raises(RuntimeError, match="SGLang's plan is not the row's"):
        _check_plan(OWN | changed, PLAN)


def test_a_release_that_does_not_say_how_it_cuts_is_not_held_to_a_plan() -> None:
    _check_plan({"swap_hw": False, "H_tok_pad": 10}, PLAN)


def test_pictures_are_rounded_as_the_baselines_are() -> None:
    values = torch.tensor([0.0, 0.4999 / 255, 0.5001 / 255, 1.2]).reshape(1, 1, 1, 2, 2).expand(1, 3, 1, 2, 2)
    (picture,) = _pictures(values)
    assert np.asarray(picture)[..., 0].tolist() == [[0, 0], [1, 255]]


def test_the_stage_that_denoises_is_found_behind_the_one_that_routes_to_it() -> None:
    stage = SimpleNamespace(_cache_dit_enabled=False)
    for stages in ([object(), stage], [object(), SimpleNamespace(standard_stage=stage)]):
        assert _sglang_releases.denoising_stage(SimpleNamespace(stages=stages)) is stage


@dataclass
class ServerArgs:
    """Arguments of some release."""

    tp_size: int = 1


def test_an_argument_that_a_release_does_not_have_is_left_out() -> None:
    assert _sglang_releases.accepted(ServerArgs, {"tp_size": 2, "warmup_mode": "off"}) == {"tp_size": 2}


def test_rotary_without_triton_turns_each_pair_of_neighbours() -> None:
    tokens = torch.randn(1, 3, 2, 4)
    angles = torch.randn(3, 2)
    turned = _sglang_releases._rotate(tokens, angles.cos(), angles.sin())
    expected = torch.view_as_complex(tokens.unflatten(-1, (2, 2))) * torch.polar(torch.ones(3, 2), angles)[:, None]
    torch.testing.assert_close(turned, torch.view_as_real(expected).flatten(-2))
