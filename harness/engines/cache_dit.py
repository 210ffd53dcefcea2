"""cache-dit on diffusers' Z-Image: its parallelism, with and without its cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

from harness.engines import _cache
from harness.models.pipeline import call_pipeline
from harness.models.z_image import PRELOAD, load_pipeline
from harness.planning.cut import pads_of
from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, ModelSpec, RunSpec, Variant


class CacheDitEngine(Engine):
    """The stock pipeline under cache-dit's context parallelism (Ulysses), which replaces diffusers' attention."""

    name = "cache-dit"
    caches = ("none", "cache-dit")
    options: ClassVar = _cache.OPTIONS
    load_time = ("ulysses",)
    packages = ("cache-dit", "diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse ring attention, and what two ranks alone can share on a CPU."""
        if variant.ring > 1:
            return "cache-dit's ring attention refuses masks, and wants a kernel that a CPU has not; write ulysses = N"
        if variant.ulysses > 2 and case.device == "cpu":
            return "cache-dit gathers uneven parts on more than 2 ranks, which gloo refuses; write ulysses = 2"
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        return _cache.limits("cache-dit", variant.options, case.steps)

    @classmethod
    def image_pads(cls, case: Case, variant: Variant, model: ModelSpec) -> int | None:
        """Count those of one device: the sequence is padded before it is cut."""
        return pads_of(case.size.tokens, model.pad_multiple)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import, but for the package itself: it changes diffusers when imported."""
        return PRELOAD

    def load(self, worker: Worker) -> None:
        """Load the checkpoint, and hand it to the package where there are several ranks."""
        import cache_dit

        self.worker = worker
        self.pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)
        if worker.world_size > 1:
            degree = worker.configuration["ulysses"]
            cache_dit.enable_cache(
                self.pipeline,
                cache_config=None,
                parallelism_config=cache_dit.ParallelismConfig(ulysses_size=degree),
            )

    def draw(self, spec: RunSpec) -> Drawing:
        """Call the pipeline as a user would, with a cache of its own for the request if the spec says so."""
        import torch.distributed as dist

        with ExitStack() as stack:
            log = None
            if spec.cache != "none":
                settings = _cache.CacheSettings.of(spec.options, spec.case.steps)
                group = dist.group.WORLD if self.worker.world_size > 1 else None
                log = stack.enter_context(_cache.cached(self.pipeline.transformer, settings, group))
            drawing = call_pipeline(self.pipeline, spec.case, self.worker)
            self.worker.cache_decisions = log.decisions() if log else ()
            return drawing
