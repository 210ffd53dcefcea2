"""Adaptation to SGLang's releases, made at run time: what a release lacks on a CPU, and what it computes otherwise.

Each adaptation looks for what it is about, not for a version: a checkout under development has the version of the
release before.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from typing import Any

RUNTIME = "sglang.multimodal_gen.runtime"


def accepted(arguments_class: type[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the arguments that this release has no field for."""
    fields = {field.name for field in dataclasses.fields(arguments_class)}
    return {name: value for name, value in arguments.items() if name in fields}


def adapt_to_cpu() -> None:
    """Supply what releases before 0.5.13 lack on a CPU: parts of their platform, and a rotary without triton."""
    if _complete_cpu_platform():
        _rotate_without_triton()


def compute_in(dtype: Any) -> None:
    """Make the denoising stage compute in ``dtype``, where it has bfloat16 written in (0.5.9, 0.5.10)."""
    stage = importlib.import_module(f"{RUNTIME}.pipelines_core.stages.denoising").DenoisingStage
    stock = stage._prepare_denoising_loop

    @functools.wraps(stock)
    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepared = stock(self, *args, **kwargs)
        if isinstance(prepared, dict):  # later releases take it from the configuration, and return an object
            prepared |= {"target_dtype": dtype, "autocast_enabled": False}
        return prepared

    stage._prepare_denoising_loop = prepare


def denoising_stage(pipeline: Any) -> Any:
    """Return the stage that denoises; later releases put one before it that routes to it."""
    stages = [getattr(stage, "standard_stage", stage) for stage in pipeline.stages]
    return next(stage for stage in stages if hasattr(stage, "_cache_dit_enabled"))


def unmount_cache(stage: Any) -> None:
    """Take Cache-DiT off the transformer, so that the next request starts without it."""
    if not getattr(stage, "_cache_dit_enabled", False):
        return
    import cache_dit

    cache_dit.disable_cache(stage.transformer)
    vars(stage.transformer).pop("forward", None)  # disable_cache leaves the bound method on the instance
    stage._cache_dit_enabled = False


def gathers_trajectories(pipeline_config: Any) -> bool:
    """Tell whether latents of all steps are gathered as they were cut (0.5.10 and later)."""
    return "batch" in pipeline_config.gather_latents_for_sp.__code__.co_varnames


def _complete_cpu_platform() -> bool:
    """Add the methods that the CPU platform lacks; tell whether there were any."""
    import torch

    cpu = importlib.import_module(f"{RUNTIME}.platforms.cpu").CpuPlatform
    answers = {
        "get_local_torch_device": torch.device("cpu"),
        "get_torch_distributed_backend_str": "gloo",
        "get_attn_backend_cls_str": f"{RUNTIME}.layers.attention.backends.sdpa.SDPABackend",
        "enable_dit_layerwise_offload_by_default": False,
    }
    lacking = [name for name in answers if name not in vars(cpu)]
    for name in lacking:
        setattr(cpu, name, classmethod(functools.partial(_answer, answers[name])))
    return bool(lacking)


def _answer(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


def _rotate_without_triton() -> None:
    layers = importlib.import_module(f"{RUNTIME}.layers.rotary_embedding")
    module: Any = getattr(layers, "utils", layers)  # a package since 0.5.10
    module.apply_rotary_embedding = _rotate


def _rotate(x: Any, cos: Any, sin: Any, interleaved: bool = False) -> Any:
    """Turn each pair of neighbours of ``..., tokens, heads, size`` by its angle, ``tokens, size / 2``."""
    import torch

    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.flatten(-2).type_as(x)
