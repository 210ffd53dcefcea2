"""The real Cache-DiT around both transformers: what it serves, and that nothing of a request outlives it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from harness import models
from harness.engines import _cache
from harness.engines.diffusers import DiffusersEngine
from harness.engines.spatial import SpatialEngine
from harness.planning.cut import cut
from harness.plugins import Worker
from harness.types import Case, RunSpec, Size

MASK = {"cache_mask": "11101001"}


@pytest.fixture(scope="module")
def engines():
    worker = Worker(0, 1, "cpu", models.resolve("nano").path, "float32")
    torch.set_num_threads(1)
    made = (DiffusersEngine(), SpatialEngine())
    for engine in made:
        engine.load(worker)
    return {engine.name: engine for engine in made}


def spec(engine: str, **fields) -> RunSpec:
    case = Case("cached", "nano", Size.parse("144x144"), ("a red ball left of a blue cube, tiles, day",), steps=8)
    plan = cut(case.size, 1, "h") if engine == "spatial" else None
    base = RunSpec(case, engine, models.resolve("nano").path, "weights", "source", plan=plan)
    return replace(base, **fields)


@pytest.mark.parametrize("name", ["diffusers", "spatial"])
def test_a_mask_serves_its_steps_and_changes_the_picture(engines, name):
    engine = engines[name]
    plain = engine.draw(spec(name))
    assert engine.worker.cache_decisions == ()
    cached = engine.draw(spec(name, cache="cache-dit", options=MASK))
    assert engine.worker.cache_decisions == (False, False, False, True, False, True, True, False)
    assert not np.array_equal(plain.latents, cached.latents)


@pytest.mark.parametrize("options", [MASK, {}], ids=["mask", "threshold"])
def test_both_engines_decide_and_draw_alike_on_one_device(engines, options):
    drawn, decided = {}, {}
    for name, engine in engines.items():
        drawn[name] = engine.draw(spec(name, cache="cache-dit", options=options)).trajectory
        decided[name] = engine.worker.cache_decisions
    assert decided["diffusers"] == decided["spatial"]
    assert any(decided["spatial"])
    assert np.array_equal(drawn["diffusers"], drawn["spatial"])


@pytest.mark.parametrize("name", ["diffusers", "spatial"])
def test_nothing_of_a_cached_request_outlives_it(engines, name):
    engine = engines[name]
    before = engine.draw(spec(name)).trajectory
    first = engine.draw(spec(name, cache="cache-dit")).trajectory
    again = engine.draw(spec(name, cache="cache-dit")).trajectory
    after = engine.draw(spec(name)).trajectory
    assert np.array_equal(first, again)
    assert np.array_equal(before, after)


def test_a_threshold_that_is_never_met_serves_nothing(engines):
    engines["spatial"].draw(spec("spatial", cache="cache-dit", options={"cache_threshold": 0.01}))
    assert engines["spatial"].worker.cache_decisions == (False,) * 8


def test_the_replay_keeps_its_pads_under_the_cache(engines):
    pads = cut(Size.parse("144x144"), 2, "h").pad_tokens
    engine = engines["diffusers"]
    plain = engine.draw(spec("diffusers", cache="cache-dit", options=MASK)).latents
    padded = engine.draw(spec("diffusers", cache="cache-dit", options=MASK, image_pad_tokens=pads)).latents
    assert not np.array_equal(plain, padded)


class SwitchByAttribute(nn.Module):
    """How SGLang 0.5.10.post1 told a layer to skip the exchange: by an attribute on its attention."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor, freqs: torch.Tensor, adaln: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            layer.attention.skip_sequence_parallel = True
            x = layer(x, freqs, adaln)
        return x


class SwitchByArgument(SwitchByAttribute):
    """How SGLang's PR 25305 mended it, and how spatial does it."""

    def forward(self, x: torch.Tensor, freqs: torch.Tensor, adaln: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, freqs, adaln, skip_sequence_parallel_override=True)
        return x


@pytest.fixture
def layers_and_input(engines):
    layers = engines["spatial"]._pipeline(spec("spatial")).transformer.layers
    dim = layers[0].block.dim
    freqs = torch.ones(1, 4, dim // 12, dtype=torch.complex64)
    return layers, (torch.randn(1, 4, dim), freqs, torch.randn(1, dim))


@torch.no_grad()
def test_a_switch_set_as_attribute_breaks_behind_the_wrapper(layers_and_input):
    layers, inputs = layers_and_input
    transformer = SwitchByAttribute(layers)
    transformer(*inputs)  # works as long as nothing wraps the layers
    with (
        _cache.cached(transformer, _cache.CacheSettings(mask=(1,))),
        pytest.raises(AttributeError, match="attention"),
    ):
        transformer(*inputs)


@torch.no_grad()
def test_a_switch_passed_as_argument_reaches_every_layer_behind_the_wrapper(layers_and_input):
    layers, inputs = layers_and_input
    seen = []
    hooks = [layer.attention.register_forward_pre_hook(lambda module, args: seen.append(args[-1])) for layer in layers]
    transformer = SwitchByArgument(layers)
    with _cache.cached(transformer, _cache.CacheSettings(mask=(1,))):
        transformer(*inputs)
    for hook in hooks:
        hook.remove()
    assert seen == [True] * len(layers)


def test_a_mask_has_a_figure_for_each_step():
    assert "each of the 8 steps" in _cache.limits("cache-dit", {"cache_mask": "111"}, 8)
    with pytest.raises(ValueError, match="each of the 8 steps"):
        _cache.CacheSettings.of({"cache_mask": "111"}, 8)


def test_no_cache_has_no_limits():
    assert _cache.limits("none", {"cache_mask": "nonsense"}, 8) is None
