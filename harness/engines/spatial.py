"""The subject under test: Z-Image cut along height or width, Ulysses over torch.distributed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from harness import registry
from harness.plan import cut
from harness.types import Axis, Case, Drawing, ModelSpec, RunSpec, Variant, Worker

if TYPE_CHECKING:
    from harness.spatial.pipeline import SpatialPipeline


class SpatialEngine:
    """The SP system that SGLang's PRs 21042 and 25305 describe, on the modules of a diffusers pipeline."""

    name: ClassVar[str] = "spatial"
    baseline: ClassVar[str] = "diffusers"
    axes: ClassVar[tuple[Axis, ...]] = ("auto", "h", "w")
    options: ClassVar[tuple[str, ...]] = ("exchange",)
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Heads must divide by the Ulysses degree."""
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        if variant.cache != "none":
            return f"spatial has no cache {variant.cache!r} yet"
        return None

    @classmethod
    def faults(cls) -> Sequence[str]:
        """Every planted bug in ``harness/faults``."""
        return registry.names("faults")

    def load(self, worker: Worker) -> None:
        """Load the checkpoint; its modules are wrapped, so there is no second copy of the weights."""
        from harness.models.z_image import load_pipeline

        self.worker = worker
        self.loaded = load_pipeline(worker.model_path, worker.dtype, worker.device)
        self.pipelines: dict[tuple[int, bool], SpatialPipeline] = {}

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request by its own plan; a fault named in the spec is planted for its length."""
        plan = spec.plan or cut(spec.case.size, 1, "h")
        pipeline = self._pipeline(spec)
        with ExitStack() as stack:
            if spec.fault:
                stack.enter_context(registry.load("faults", spec.fault)().plant(self.worker))
            sent = pipeline.group.traffic.sent_bytes
            drawing = pipeline(spec.case, plan)
            self.worker.count("exchanged_bytes", pipeline.group.traffic.sent_bytes - sent)
            return drawing

    def _pipeline(self, spec: RunSpec) -> SpatialPipeline:
        """The resident pipeline for a split; process groups are built once for each."""
        from harness.spatial.group import SequenceGroup, build
        from harness.spatial.pipeline import SpatialPipeline

        # Layout exact exchanges query, key and value together, aligned one by one as the fix does.
        default = "fused" if spec.layout == "exact" else "separate"
        key = (spec.ulysses, spec.options.get("exchange", default) == "fused")
        if key not in self.pipelines:
            ranks = range(self.worker.world_size)
            group = build([ranks], spec.ulysses, spec.ring) if len(ranks) > 1 else SequenceGroup()
            self.pipelines[key] = SpatialPipeline(self.loaded, group, self.worker, fused=key[1])
        return self.pipelines[key]
