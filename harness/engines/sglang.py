"""SGLang's diffusion runtime inside the ranks of the harness: no server, no process of its own, no port.

What a server's worker process does is done here in each rank: its ``GPUWorker`` adopts the process group, loads the
pipeline, and is called with one request after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from harness.engines import _cache
from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, ModelSpec, RunSpec, ShardPlan, Times, Variant
from harness.worker.clock import Clock

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
PRELOAD = (
    "harness.engines._absent_kernels",
    "sglang.multimodal_gen.runtime.managers.gpu_worker",
    "sglang.multimodal_gen.runtime.pipelines.zimage_pipeline",
    "sglang.multimodal_gen.runtime.models.dits.zimage",
)

SERVER = {
    "backend": "sglang",  # else it falls back to diffusers' own pipeline, and says so in its log alone
    "tp_size": 1,
    "attention_backend": "torch_sdpa",
    "warmup_mode": "off",
    "enable_breakable_cuda_graph": False,
    "dit_cpu_offload": False,
    "dit_layerwise_offload": False,
    "text_encoder_cpu_offload": False,
    "image_encoder_cpu_offload": False,
    "vae_cpu_offload": False,
    "pin_cpu_memory": False,
    "log_level": "warning",
}
"""Arguments of every server: everything resident, nothing chosen by what the machine has."""


class SglangEngine(Engine):
    """SGLang as its packages are installed: a release, or a checkout under development."""

    name = "sglang"
    axes = ("auto",)
    caches = ("none", "cache-dit")
    options = _cache.OPTIONS
    own_arithmetic = True
    own_environment = True
    control_db: ClassVar = {"bfloat16": 60.0}  # 63.8 to 64.9 dB at the full size on an H200; float32 reaches the floor
    load_time = ("ulysses", "ring")
    packages = ("sglang", "torch", "diffusers", "transformers", "cache-dit")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse what SGLang has no way to draw."""
        if variant.ring > 1:
            return "SGLang's ring attention refuses torch's SDPA, the one attention that every device has"
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        if not Path(model.path).is_dir():
            return f"SGLang reads a checkpoint from a folder, and {model.name} has none"
        return _cache.limits(variant.cache, variant.options, case.steps)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import."""
        return (*PRELOAD, *_cache.preload(spec.cache))

    def load(self, worker: Worker) -> None:
        """Make what a server's worker has, from the harness' process group on, and refuse a fall-back."""
        import torch
        import torch.distributed as dist

        from harness.engines import _absent_kernels, _sglang_releases  # noqa: F401, the first for what it does
        from harness.engines._sglang_view import sglang_view

        self.worker = worker
        self.releases = _sglang_releases
        self.folder = str(sglang_view(Path(worker.model_path)))
        os.environ.setdefault("SGLANG_DIFFUSION_IPC_A2A", "0")  # exchange through torch.distributed on two GPUs, too
        if not dist.is_initialized():  # without one SGLang opens a port, for a single process as well
            backend = "nccl" if worker.device == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        _sglang_releases.compute_in(getattr(torch, worker.dtype))
        if worker.device == "cpu":
            _sglang_releases.adapt_to_cpu()
        self._serve(**worker.configuration)
        transformer = type(self.pipeline.modules["transformer"])
        if not transformer.__module__.startswith("sglang."):
            raise RuntimeError(
                f"not engaged: SGLang fell back to {transformer.__module__}.{transformer.__name__}; its log says why"
            )

    def draw(self, spec: RunSpec) -> Drawing:
        """Serve one request; every rank ends with the whole picture."""
        request = self._request(spec.case)
        with ExitStack() as stack:
            served = stack.enter_context(self._cached(spec))
            listener = stack.enter_context(_listening(self.pipeline, self.worker))
            result = self.pipeline.forward(request, self.server)
            if result.output is None:
                raise RuntimeError(f"SGLang returned no picture: {getattr(result, 'error', None)}")
            self.worker.cache_decisions = served()
        _check_plan(getattr(request, "_zimage_sp_plan", None), spec.plan)
        trajectory = None
        if result.trajectory_latents is not None:
            trajectory = result.trajectory_latents.float()[:, :, :, 0].transpose(0, 1).numpy()  # no frames, steps first
        latents = request.latents.float().cpu().numpy() if trajectory is None else trajectory[-1]
        return Drawing(
            images=_pictures(result.output),
            latents=latents.reshape(latents.shape[0], -1, *latents.shape[-2:]),
            trajectory=trajectory,
            times=listener.times(),
            caption_tokens=_caption_tokens(request),
        )

    def _serve(self, ulysses: int, ring: int) -> None:
        """Load the pipeline, split by these degrees."""
        from sglang.multimodal_gen.runtime.managers.gpu_worker import GPUWorker
        from sglang.multimodal_gen.runtime.server_args import ServerArgs, set_global_server_args

        precision = PRECISIONS[self.worker.dtype]
        self.server = ServerArgs.from_kwargs(
            model_path=self.folder,
            num_gpus=self.worker.world_size,
            sp_degree=ulysses * ring,
            ulysses_degree=ulysses,
            ring_degree=ring,
            dit_precision=precision,
            vae_precision=precision,
            text_encoder_precisions=[precision],
            **self.releases.accepted(ServerArgs, SERVER),
        )
        set_global_server_args(self.server)
        rank = self.worker.rank
        self.pipeline = GPUWorker(local_rank=rank, rank=rank, master_port=0, server_args=self.server).pipeline

    def _request(self, case: Case) -> Any:
        import numpy as np
        from sglang.multimodal_gen.configs.sample.sampling_params import SamplingParams
        from sglang.multimodal_gen.runtime.entrypoints.utils import prepare_request

        parameters = SamplingParams.from_user_sampling_params_args(
            self.folder,
            server_args=self.server,
            prompt=case.prompts[0],
            negative_prompt=case.negative_prompts[0] if case.negative_prompts else "",
            width=case.size.width_px,
            height=case.size.height_px,
            num_inference_steps=case.steps,
            guidance_scale=case.guidance_scale,
            cfg_normalization=False,
            seed=case.seed,
            generator_device="cpu",  # where the baseline draws its noise
            return_trajectory_latents=self.worker.world_size == 1
            or self.releases.gathers_trajectories(self.server.pipeline_config),
            save_output=False,
            suppress_logs=True,
        )
        request = prepare_request(self.server, parameters)
        request.sigmas = np.linspace(1, 1 / case.steps, case.steps).tolist()  # defaults moved between releases
        if case.num_images > 1:
            _merge(request, case)
        return request

    @contextmanager
    def _cached(self, spec: RunSpec) -> Iterator[Any]:
        """Switch SGLang's Cache-DiT on for one request; yields what tells its decisions."""
        if spec.cache == "none":
            yield tuple
            return
        settings = _cache.CacheSettings.of(spec.options, spec.case.steps)
        stage = self.releases.denoising_stage(self.pipeline)
        try:
            with patch.dict(os.environ, _cache_environment(settings)):
                yield lambda: _cache_decisions(stage.transformer)
        finally:
            self.releases.unmount_cache(stage)


def _merge(request: Any, case: Case) -> None:
    """Make a request one of several pictures, as SGLang's scheduler merges requests that wait together."""
    import torch

    request.prompt = [prompt for prompt in case.prompts for _ in range(case.num_images_per_prompt)]
    request.extra["dynamic_batch_seeds"] = [case.seed] * case.num_images
    # SGLang draws the noise of each picture from its own seed; the baseline draws that of all from one.
    shape = (case.num_images, 16, case.size.height_px // 8, case.size.width_px // 8)
    request.latents = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(case.seed)).unsqueeze(2)


def _check_plan(own: Mapping[str, Any] | None, plan: ShardPlan | None) -> None:
    """Raise where SGLang has cut another way than the replay of this row was told; 0.5.9 does not say."""
    if plan is None or own is None or "shard_axis" not in own:
        return
    cut = (own["shard_axis"], tuple(own["shard_sizes_tok"]), own["img_seq_target"])
    told = (plan.axis, plan.shard_tokens, plan.sequence_target)
    if cut != told:
        raise RuntimeError(f"SGLang's plan is not the row's: axis, tokens and target {cut} against {told}")


def _caption_tokens(request: Any) -> tuple[int, ...]:
    if isinstance(request.prompt, list):
        return tuple(request.prompt_seq_lens[0])
    return (len(request.prompt_embeds[0]),)  # embeddings of one prompt, without fill


def _cache_environment(settings: _cache.CacheSettings) -> dict[str, str]:
    """Write cache settings as SGLang reads them."""
    knobs = {
        "ENABLED": "true",
        "FN": _cache.FIRST_LAYERS,
        "BN": 0,
        "WARMUP": _cache.WARMUP_STEPS,
        "RDT": settings.threshold,
        "MC": settings.max_continuous,
    }
    if settings.mask:
        computed, served = _runs(settings.mask)
        knobs |= {"SCM_COMPUTE_BINS": computed, "SCM_CACHE_BINS": served, "SCM_POLICY": "static"}
    return {f"SGLANG_CACHE_DIT_{name}": str(value) for name, value in knobs.items()}


def _runs(mask: Sequence[int]) -> tuple[str, str]:
    """Lengths of the runs of computed steps, and of those of served steps between them.

    >>> _runs((1, 1, 0, 1))
    ('2,1', '1')
    """
    from itertools import groupby

    lengths = [(value, str(len(list(run)))) for value, run in groupby(mask)]
    computed, served = (",".join(length for value, length in lengths if value == kind) for kind in (1, 0))
    return computed, served


def _cache_decisions(transformer: Any) -> tuple[bool, ...]:
    cached = getattr(transformer, "_sglang_cache_dit_adapter", transformer)
    context = cached._context_manager.get_context(cached._context_names[0])
    return _cache.CacheLog(context).decisions()


class _Listener:
    """Times of the parts of a request."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._clock = Clock(worker.device)
        self._text_s = 0.0
        self._steps_s: list[float] = []

    def denoising(self, *_: Any) -> None:
        """Note that the transformer is called: what came before the first call was the text."""
        if not self._text_s:
            self._text_s = self._clock.lap()

    def step_ended(self) -> None:
        """Note the end of a step."""
        self._steps_s.append(self._clock.lap())
        self._worker.progress(len(self._steps_s))

    def times(self) -> Times:
        """Return the times; the time since the last step is decoding's."""
        return Times(self._text_s, tuple(self._steps_s), self._clock.lap(), self._clock.total())


@contextmanager
def _listening(pipeline: Any, worker: Worker) -> Iterator[_Listener]:
    """Listen at the scheduler: under guidance the transformer is called twice a step."""
    listener = _Listener(worker)
    scheduler = type(pipeline.modules["scheduler"])  # each request has a copy of its own
    stock = scheduler.step

    @wraps(stock)  # stages ask for its signature
    def step(*args: Any, **kwargs: Any) -> Any:
        stepped = stock(*args, **kwargs)
        listener.step_ended()
        return stepped

    hook = pipeline.modules["transformer"].register_forward_pre_hook(listener.denoising)
    try:
        with patch.object(scheduler, "step", step):
            yield listener
    finally:
        hook.remove()


def _pictures(output: Any) -> list[Any]:
    """Turn values from 0 to 1, ``B,3,H,W`` or with a frame axis, into pictures, rounded as the baseline does."""
    from PIL import Image

    values = output.float().cpu().reshape(output.shape[0], 3, *output.shape[-2:])
    rounded = (values.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in rounded]
