"""xFuser (xDiT): its wrapper of the Z-Image transformer in a stock diffusers pipeline, inside the ranks of the harness.

The sequence of diffusers, its pads included, is cut into equal parts over all ranks. Where it does not divide,
xFuser appends zeros, which are attended like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.models.pipeline import call_pipeline
from harness.models.z_image import load_pipeline
from harness.planning.cut import pads_of
from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, ModelSpec, RunSpec, Variant


class XfuserEngine(Engine):
    """Ulysses as xFuser does it; degrees that do not divide the heads pad these with zeros."""

    name = "xfuser"
    own_environment = True
    packages = ("xfuser", "diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse ring attention."""
        if variant.ring > 1:
            return "xFuser's ring attention needs FlashAttention, which returns the log-sum-exp"
        return None

    @classmethod
    def image_pads(cls, case: Case, variant: Variant, model: ModelSpec) -> int | None:
        """Count those of one device; the zeros beyond are no pads, and nothing is to attend to them."""
        return pads_of(case.size.tokens, model.pad_multiple)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import."""
        return ("diffusers.pipelines.z_image.pipeline_z_image", "harness.engines._xfuser")

    def load(self, worker: Worker) -> None:
        """Start xFuser's groups and put its transformer in the place of the stock one."""
        from harness.engines import _xfuser

        self.worker = worker
        _xfuser.start(worker)
        self.pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)
        self.pipeline.transformer = _xfuser.wrapped(self.pipeline.transformer)

    def draw(self, spec: RunSpec) -> Drawing:
        """Draw as a stock pipeline does; every rank ends with the whole picture."""
        steps = spec.case.steps
        sigmas = [1 - step / steps for step in range(steps)]  # defaults moved between releases of diffusers
        return call_pipeline(self.pipeline, spec.case, self.worker, sigmas=sigmas)
