"""Loading a Z-Image checkpoint inside a worker: safetensors from disk, no network, no foreign code."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InfrastructureError
from harness.models import full_size
from harness.types import Device, DType

if TYPE_CHECKING:
    import torch
    from diffusers import ZImagePipeline

PRELOAD = (
    "torch",
    "diffusers.pipelines.z_image.pipeline_z_image",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.transformers.transformer_z_image",
    "diffusers.schedulers.scheduling_flow_match_euler_discrete",
    "diffusers.guiders",
    "transformers.generation.utils",
    "transformers.models.qwen2.tokenization_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
    "harness.spatial.pipeline",
)
"""Modules that loading and drawing need, for engines' ``preload``."""


STACKS = ("noise_refiner", "context_refiner", "layers")
"""Stacks of blocks in the order in which a request passes them; the first two compute image and caption alone."""

CP_SPLIT = {**{f"{stack}.0": ("x",) for stack in STACKS}, **{f"{stack}.*": ("freqs_cis",) for stack in STACKS}}
"""Plan of diffusers' context parallelism, which ships none for this model: arguments ``B,S,C`` of modules, cut along
the padded sequence ``S``."""
CP_MASKS = {f"{stack}.*": ("attn_mask",) for stack in STACKS}
"""Arguments ``B,S`` that are cut too where ranks are given parts of the mask."""
CP_GATHER = ("noise_refiner.-1", "context_refiner.-1", "all_final_layer.2-1")
"""Modules whose output is put together; ``-1`` is the last of a stack."""


@cache
def load_pipeline(path: str, dtype: DType, device: Device) -> ZImagePipeline:
    """Make diffusers' own pipeline resident, ready to draw; engines of one process share one copy.

    Others than those with ``process`` of :class:`harness.plugins.Engine` set never meet in one.

    Parameters
    ----------
    path : str
        Folder in Hugging Face layout, or the place of a model without files, as
        :func:`harness.models.resolve` returns it.
    dtype : {"float32", "bfloat16", "float16"}
        Of all three networks.
    device : {"cpu", "cuda"}
        ``cuda`` is the process's current CUDA device.

    Returns
    -------
    diffusers.ZImagePipeline
        In evaluation mode, its progress bar off.

    Raises
    ------
    InfrastructureError
        If ``cuda`` is asked for and there is none, or the folder is gone.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InfrastructureError('device = "cuda": torch sees no CUDA device here; write device = "cpu"')
    if path == full_size.PATH:
        pipeline = full_size.make(getattr(torch, dtype), device)
    elif not Path(path).is_dir():
        raise InfrastructureError(f"{path}: the checkpoint is not here any more; plan the matrix anew")
    else:
        pipeline = _from_folder(path, getattr(torch, dtype))
    for network in (pipeline.text_encoder, pipeline.transformer, pipeline.vae):
        network.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _from_folder(path: str, dtype: torch.dtype) -> ZImagePipeline:
    from diffusers import ZImagePipeline

    with warnings.catch_warnings():
        # Releases before the new name `dtype` would ignore it and load float32; all of today's know the old one.
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        return ZImagePipeline.from_pretrained(
            path, torch_dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
