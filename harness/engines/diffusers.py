"""The baseline: diffusers' own ``ZImagePipeline`` on one device, untouched.

The same engine draws replays: told how many pads to add to its image sequence, the stock pipeline
computes all that a correct SP layout may change, with no code shared with the system under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from harness.engines import _cache
from harness.engines._overrides import padded_image_sequence, reordered_image_sequence
from harness.models.pipeline import call_pipeline
from harness.models.z_image import PRELOAD, load_pipeline
from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, ModelSpec, RunSpec, Variant


class DiffusersEngine(Engine):
    """One process, ``ZImagePipeline.__call__`` itself."""

    name = "diffusers"
    caches = ("none", "cache-dit")
    options = _cache.OPTIONS
    process = "diffusers-pipeline"
    packages = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse more than one device, and a cache that is not available."""
        if variant.degree > 1:
            return f"diffusers draws on one device, not on {variant.degree}"
        return _cache.limits(variant.cache, variant.options, case.steps)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import."""
        return (*PRELOAD, *_cache.preload(spec.cache))

    def load(self, worker: Worker) -> None:
        """Load the checkpoint."""
        self.worker = worker
        self.pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)

    def draw(self, spec: RunSpec) -> Drawing:
        """Call the pipeline as a user would, listening only."""
        transformer = self.pipeline.transformer
        with ExitStack() as stack:
            stack.enter_context(padded_image_sequence(transformer, spec.image_pad_tokens))
            stack.enter_context(reordered_image_sequence(transformer, spec.token_order))
            log = None
            if spec.cache != "none":
                settings = _cache.CacheSettings.of(spec.options, spec.case.steps)
                log = stack.enter_context(_cache.cached(transformer, settings))
            drawing = call_pipeline(self.pipeline, spec.case, self.worker)
            self.worker.cache_decisions = log.decisions() if log else ()
            return drawing
