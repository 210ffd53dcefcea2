"""A diffusers pipeline, called as a user would; for every engine that runs on one.

    from harness.models.pipeline import call_pipeline
    from harness.models.z_image import PRELOAD, load_pipeline

:func:`call_pipeline` changes nothing of the pipeline: an engine wraps, hooks or parallelises it before the call.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from harness.plugins import Drawing, Worker
from harness.types import Case, Times
from harness.worker.clock import Clock


def call_pipeline(pipeline: Any, case: Case, worker: Worker, **arguments: Any) -> Drawing:
    """Draw a case with a diffusers pipeline; report its steps, and return trajectory, times and caption tokens.

    Parameters
    ----------
    pipeline
        A loaded text-to-image pipeline whose ``callback_on_step_end`` is given latents ``B,C,H,W``.
    case
        Prompts, size, seed, steps, guidance. Noise is drawn on the CPU.
    worker
        Told of each step.
    **arguments
        Further arguments of the pipeline's call, or others in place of the case's.

    Returns
    -------
    Drawing
        On every rank that calls it. ``caption_tokens`` are those of the first call of the text encoder, without
        fill; empty for a pipeline without ``text_encoder`` or one that passes it no ``attention_mask``.
    """
    import torch

    with closing(_Listener(pipeline, worker)) as listener:
        stock = {
            # The pipeline overwrites the lists it is given.
            "prompt": list(case.prompts),
            "negative_prompt": list(case.negative_prompts) or None,
            "width": case.size.width_px,
            "height": case.size.height_px,
            "num_inference_steps": case.steps,
            "guidance_scale": case.guidance_scale,
            "num_images_per_prompt": case.num_images_per_prompt,
            "generator": torch.Generator("cpu").manual_seed(case.seed),
            "callback_on_step_end": listener.step_ended,
        }
        images = pipeline(**{**stock, **arguments}).images
        return listener.drawing(images)


class _Listener:
    """Collect latents and times from the hooks that the pipeline offers."""

    def __init__(self, pipeline: Any, worker: Worker) -> None:
        self._worker = worker
        self._clock = Clock(worker.device)
        self._text_s = 0.0
        self._steps_s: list[float] = []
        self._after: list[Any] = []
        self._caption_tokens: tuple[int, ...] = ()
        encoder = getattr(pipeline, "text_encoder", None)
        self._hook = encoder.register_forward_hook(self._text_encoded, with_kwargs=True) if encoder else None

    def close(self) -> None:
        """Take the hook off the text encoder."""
        if self._hook is not None:
            self._hook.remove()

    def _text_encoded(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self._text_s += self._clock.lap()
        mask = kwargs.get("attention_mask")
        if mask is not None and not self._caption_tokens:  # a second call encodes the negative prompts
            self._caption_tokens = tuple(mask.sum(dim=1).tolist())

    def step_ended(self, pipeline: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Record a step; an argument of the pipeline's call."""
        import torch

        self._steps_s.append(self._clock.lap())
        # Moved once: on the CPU it has to be a copy, since the scheduler may write to it.
        self._after.append(tensors["latents"].detach().to("cpu", torch.float32, copy=True))
        self._worker.progress(step + 1)
        return {}

    def drawing(self, images: list[Any]) -> Drawing:
        """Put together all that was recorded; the time since the last step is that of the decoding."""
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
