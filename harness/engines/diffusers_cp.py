"""diffusers' own context parallelism on its own Z-Image: the padded sequence is cut into equal parts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar

from harness.engines import _context_parallel
from harness.models.pipeline import call_pipeline
from harness.models.z_image import PRELOAD, load_pipeline
from harness.planning.cut import PAD_MULTIPLE, pads_of
from harness.plugins import Drawing, Engine, Option, Worker
from harness.types import Case, ModelSpec, RunSpec, Variant


class DiffusersContextParallelEngine(Engine):
    """The stock pipeline, its transformer told to share the sequence with the other ranks (Ulysses)."""

    name = "diffusers-cp"
    options: ClassVar = {
        "anything": Option(
            bool, help="parts of any length; by default where the ranks do not divide 32, to which sequences are padded"
        ),
        "mask": Option(
            str, "whole", "attention masks: the whole one on every rank, or cut as tokens are", ("whole", "split")
        ),
    }
    load_time = ("ulysses", "anything", "mask")
    packages = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Refuse ring attention, and heads that the Ulysses degree does not divide."""
        if variant.ring > 1:
            return (
                "diffusers' ring attention wants a kernel that returns the log-sum-exp, which its default one does "
                "not, and fails on masks; write ulysses = N alone"
            )
        if model.num_heads % variant.ulysses:
            return f"Ulysses degree {variant.ulysses} does not divide the {model.num_heads} heads of {model.name}"
        return None

    @classmethod
    def image_pads(cls, case: Case, variant: Variant, model: ModelSpec) -> int | None:
        """Count those of one device: the sequence is padded before it is cut."""
        return pads_of(case.size.tokens, model.pad_multiple)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name what loading and drawing import."""
        return PRELOAD

    def load(self, worker: Worker) -> None:
        """Load the checkpoint, and put diffusers' hooks in where there are several ranks."""
        self.worker = worker
        self.pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)
        wanted = worker.configuration
        anything = wanted["anything"]
        if worker.world_size > 1:
            _context_parallel.enable(
                self.pipeline.transformer,
                worker.device,
                cut_masks=wanted["mask"] == "split",
                ulysses_degree=wanted["ulysses"],
                ulysses_anything=bool(PAD_MULTIPLE % wanted["ulysses"]) if anything is None else anything,
            )

    def draw(self, spec: RunSpec) -> Drawing:
        """Call the pipeline as a user would; every rank ends with the whole picture."""
        with _context_parallel.uneven_gathers() if self.worker.device == "cpu" else nullcontext():
            return call_pipeline(self.pipeline, spec.case, self.worker)
