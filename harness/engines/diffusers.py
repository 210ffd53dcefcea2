"""The baseline: diffusers' own ``ZImagePipeline`` on one device, untouched.

The same engine draws replays: told how many pads to add to its image sequence, the stock pipeline
computes all that a correct SP layout may change, with no code shared with the system under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from harness.engines import _cache
from harness.engines._overrides import padded_image_sequence, reversed_image_sequence
from harness.models.z_image import PRELOAD
from harness.plugins import Drawing, Engine, Worker
from harness.types import Case, ModelSpec, RunSpec, Times, Variant

if TYPE_CHECKING:
    import torch


class DiffusersEngine(Engine):
    """One process, ``ZImagePipeline.__call__`` itself."""

    name = "diffusers"
    caches = ("none", "cache-dit")
    options = _cache.OPTIONS
    packages = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """It draws on one device."""
        if variant.degree > 1:
            return f"diffusers draws on one device, not on {variant.degree}"
        return _cache.limits(variant.cache, variant.options, case.steps)

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """What loading and drawing import."""
        return (*PRELOAD, *_cache.preload(spec.cache))

    def load(self, worker: Worker) -> None:
        """Load the checkpoint once."""
        from harness.models.z_image import load_pipeline

        self.worker = worker
        self.pipeline = load_pipeline(worker.model_path, worker.dtype, worker.device)

    def draw(self, spec: RunSpec) -> Drawing:
        """Call the pipeline as a user would, listening only."""
        import torch

        case, pipeline = spec.case, self.pipeline
        listener = _Listener(self.worker)
        with ExitStack() as stack:
            hook = pipeline.text_encoder.register_forward_hook(listener.text_encoded, with_kwargs=True)
            stack.callback(hook.remove)
            stack.enter_context(padded_image_sequence(pipeline.transformer, spec.image_pad_tokens))
            if spec.token_order == "reversed":
                stack.enter_context(reversed_image_sequence(pipeline.transformer))
            log = None
            if spec.cache != "none":
                settings = _cache.CacheSettings.of(spec.options, case.steps)
                log = stack.enter_context(_cache.cached(pipeline.transformer, settings))
            images = pipeline(
                # The pipeline overwrites the lists it is given.
                prompt=list(case.prompts),
                negative_prompt=list(case.negative_prompts) or None,
                width=case.size.width_px,
                height=case.size.height_px,
                num_inference_steps=case.steps,
                guidance_scale=case.guidance_scale,
                num_images_per_prompt=case.num_images_per_prompt,
                generator=torch.Generator("cpu").manual_seed(case.seed),
                callback_on_step_end=listener.step_ended,
            ).images
            self.worker.cache_decisions = log.decisions() if log else ()
        return listener.drawing(images)


class _Listener:
    """Collects latents and times from the hooks the pipeline offers."""

    def __init__(self, worker: Worker) -> None:
        from harness.worker.clock import Clock

        self._worker = worker
        self._clock = Clock(worker.device)
        self._text_s = 0.0
        self._steps_s: list[float] = []
        self._after: list[torch.Tensor] = []
        self._caption_tokens: tuple[int, ...] = ()

    def text_encoded(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self._text_s += self._clock.lap()
        if not self._caption_tokens:  # a second call encodes the negative prompts
            self._caption_tokens = tuple(kwargs["attention_mask"].sum(dim=1).tolist())

    def step_ended(self, pipeline: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        import torch

        self._steps_s.append(self._clock.lap())
        # Moved once: on the CPU it has to be a copy, since the scheduler may write to it.
        self._after.append(tensors["latents"].detach().to("cpu", torch.float32, copy=True))
        self._worker.progress(step + 1)
        return {}

    def drawing(self, images: list[Any]) -> Drawing:
        import torch

        decode_s = self._clock.lap()
        trajectory = torch.stack(self._after).numpy()
        return Drawing(
            images=images,
            latents=trajectory[-1],
            trajectory=trajectory,
            times=Times(self._text_s, tuple(self._steps_s), decode_s, self._clock.total()),
            caption_tokens=self._caption_tokens,
        )
