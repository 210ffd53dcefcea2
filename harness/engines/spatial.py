"""The subject under test: Z-Image cut along height or width, Ulysses over torch.distributed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from harness import plugins
from harness.engines import _cache, _neutral
from harness.models.z_image import PRELOAD
from harness.planning.cut import cut
from harness.plugins import Drawing, Engine, Option, Worker
from harness.types import Case, ModelSpec, RunSpec, Variant

if TYPE_CHECKING:
    from harness.spatial.attention import ExchangeMode
    from harness.spatial.group import SequenceGroup
    from harness.spatial.pipeline import SpatialPipeline
    from harness.spatial.steps import Steps


OPTIONS = {
    "exchange": Option(
        str,
        help="query, key and value in three collectives, in one, or each while the next is computed; fused by default "
        "with layout exact, else separate",
        choices=("separate", "fused", "overlapped"),
    ),
    "graph": Option(
        bool,
        default=False,
        help="record the step of each shape once, as a CUDA graph, and replay it; on a CPU it is called on the same "
        "buffers",
    ),
}


class SpatialEngine(Engine):
    """The SP system that SGLang's PRs 21042 and 25305 describe, on the modules of a diffusers pipeline."""

    name = "spatial"
    axes = ("auto", "h", "w")
    layouts = ("aligned", "exact")
    caches = ("none", "cache-dit")
    options: ClassVar = {**OPTIONS, **_neutral.OPTIONS, **_cache.OPTIONS}
    process = "diffusers-pipeline"
    packages = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse heads that the Ulysses degree does not divide, and a cache that is not available."""
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        if variant.cache != "none" and variant.options.get("graph"):
            return "Cache-DiT decides at every step which layers to compute, and a graph computes the same ones always"
        return _cache.limits(variant.cache, variant.options, case.steps)

    @classmethod
    def faults(cls) -> Sequence[str]:
        """List every planted bug in ``harness/faults``."""
        return plugins.names("faults")

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import."""
        return (*PRELOAD, *_cache.preload(spec.cache))

    def load(self, worker: Worker) -> None:
        """Load the checkpoint; its modules are wrapped, so there is no second copy of the weights."""
        from harness.models.z_image import load_pipeline
        from harness.spatial.steps import Calls, CudaGraphs, Recordings

        self.worker = worker
        self.loaded = load_pipeline(worker.model_path, worker.dtype, worker.device)
        self.groups: dict[int, SequenceGroup] = {}
        self.pipelines: dict[tuple[int, ExchangeMode], SpatialPipeline] = {}
        self.recordings = Recordings()
        self.recorder = CudaGraphs() if worker.device == "cuda" else Calls()

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request by its own plan, with a fault planted or a cache of its own if the spec says so."""
        plan = spec.plan or cut(spec.case.size, 1, "h")
        pipeline = self._pipeline(spec)
        with ExitStack() as stack:
            if spec.fault:
                stack.enter_context(plugins.load("faults", spec.fault)().plant(self.worker))
            stack.enter_context(_neutral.applied(spec.options))
            log = None
            if spec.cache != "none":  # after the fault: the cache takes over the forward it finds
                settings = _cache.CacheSettings.of(spec.options, spec.case.steps)
                handle = pipeline.group.whole.handle
                log = stack.enter_context(_cache.cached(pipeline.transformer, settings, handle))
            sent = pipeline.group.traffic.sent_bytes
            drawing = pipeline(spec.case, plan, self._steps(spec))
            self.worker.count("exchanged_bytes", pipeline.group.traffic.sent_bytes - sent)
            self.worker.cache_decisions = log.decisions() if log else ()
            return drawing

    def _steps(self, spec: RunSpec) -> Steps:
        """Return the way to compute a request's steps; a recording also depends on what is patched while it is made."""
        from harness.spatial.steps import Calls, EagerSteps, RecordedSteps

        if not self.option(spec, "graph"):
            return EagerSteps()
        # A graph shows nothing of its inside to a probe; the same buffers do.
        recorder = Calls() if spec.probe else self.recorder
        context = (spec.fault, spec.probe, *sorted(spec.options.items()))
        return RecordedSteps(self.recordings, recorder, self.worker, context)

    def _pipeline(self, spec: RunSpec) -> SpatialPipeline:
        """Return the resident pipeline for a split; process groups are built once for each grid of ranks."""
        from harness.spatial.group import SequenceGroup, build
        from harness.spatial.pipeline import SpatialPipeline

        if spec.ulysses not in self.groups:
            ranks = range(self.worker.world_size)
            grid = build([ranks], spec.ulysses, spec.ring) if len(ranks) > 1 else SequenceGroup()
            self.groups[spec.ulysses] = grid

        # Layout exact exchanges query, key and value together, aligned one by one as the fix does.
        exchange: ExchangeMode = self.option(spec, "exchange") or ("fused" if spec.layout == "exact" else "separate")
        key = (spec.ulysses, exchange)
        if key not in self.pipelines:
            self.pipelines[key] = SpatialPipeline(self.loaded, self.groups[spec.ulysses], self.worker, exchange)
        return self.pipelines[key]
