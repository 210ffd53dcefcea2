"""The subject under test: Z-Image cut along height or width, Ulysses over torch.distributed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

from harness import registry
from harness.plan import cut
from harness.types import Axis, Case, Drawing, ModelSpec, RunSpec, Variant, Worker


class SpatialEngine:
    """The SP system that SGLang's PRs 21042 and 25305 describe, on the modules of a diffusers pipeline."""

    name: ClassVar[str] = "spatial"
    baseline: ClassVar[str] = "diffusers"
    axes: ClassVar[tuple[Axis, ...]] = ("auto", "h", "w")
    options: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Heads must divide; ring, cache, guidance and several prompts are not built yet."""
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        if variant.ring > 1:
            return "spatial has no ring attention yet"
        if variant.layout != "aligned":
            return f"spatial has no layout {variant.layout!r} yet"
        if variant.cache != "none":
            return f"spatial has no cache {variant.cache!r} yet"
        if case.guidance_scale > 0:
            return "spatial has no guidance yet"
        if len(case.prompts) > 1:
            return "spatial draws one prompt at a time yet"
        return None

    @classmethod
    def faults(cls) -> Sequence[str]:
        """Every planted bug in ``harness/faults``."""
        return registry.names("faults")

    def load(self, worker: Worker) -> None:
        """Load the checkpoint and wrap its modules; no second copy of the weights."""
        import torch.distributed as dist

        from harness.models.z_image import load_pipeline
        from harness.spatial.pipeline import SpatialPipeline
        from harness.spatial.shard import SequenceGroup

        self.worker = worker
        handle = dist.group.WORLD if worker.world_size > 1 else None
        group = SequenceGroup(worker.rank, worker.world_size, handle)
        self.pipeline = SpatialPipeline(load_pipeline(worker.model_path, worker.dtype, worker.device), group, worker)

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request by its own plan; a fault named in the spec is planted for its length."""
        plan = spec.plan or cut(spec.case.size, 1, "h")
        with ExitStack() as stack:
            if spec.fault:
                stack.enter_context(registry.load("faults", spec.fault)().plant(self.worker))
            return self.pipeline(spec.case, plan)
