"""The baseline: diffusers' own ``ZImagePipeline`` on one device, untouched.

The same engine draws replays: told how many pads to add to its image sequence, the stock pipeline
computes all that a correct SP layout may change, with no code shared with the system under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from harness.engines import _cache
from harness.types import Axis, Case, Drawing, ModelSpec, RunSpec, Times, Variant, Worker

if TYPE_CHECKING:
    import torch


class DiffusersEngine:
    """One process, ``ZImagePipeline.__call__`` itself."""

    name: ClassVar[str] = "diffusers"
    baseline: ClassVar[str] = "diffusers"
    axes: ClassVar[tuple[Axis, ...]] = ("none",)
    options: ClassVar[tuple[str, ...]] = _cache.OPTIONS
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "transformers", "torch")

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """It draws on one device."""
        if variant.degree > 1:
            return f"diffusers draws on one device, not on {variant.degree}"
        return _cache.limits(variant.cache, variant.options, case.steps)

    @classmethod
    def faults(cls) -> Sequence[str]:
        """The baseline has no faults to switch on."""
        return ()

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
        from harness.probe.clock import Clock

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
        self._steps_s.append(self._clock.lap())
        self._after.append(tensors["latents"].detach().float().cpu().clone())
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


@contextmanager
def padded_image_sequence(transformer: Any, num_pads: int | None) -> Iterator[None]:
    """Make the stock transformer pad its image sequence with ``num_pads`` tokens in all.

    diffusers pads captions and images in one method, ``_pad_with_ids``. It is overridden on the instance
    alone: the original is called, then pads of the very same kind (pad mask set, position (0, 0, 0)) are
    appended to the image. Attention does not care for the order of its keys and every pad is the same
    token at the same position, so their *number* is all that a correct SP layout changes.

    Raises
    ------
    ValueError
        If the stock pipeline pads with more than ``num_pads`` already.
    """
    if num_pads is None:
        yield
        return
    stock = transformer._pad_with_ids
    transformer._pad_with_ids = _with_image_pads(stock, num_pads)
    try:
        yield
    finally:
        del transformer._pad_with_ids  # the class' own method shows again


def _with_image_pads(stock: Callable[..., Any], num_pads: int) -> Callable[..., Any]:
    import torch

    def pad_with_ids(feat: Any, pos_grid_size: Any, pos_start: Any, device: Any, noise_mask_val: Any = None) -> Any:
        padded = stock(feat, pos_grid_size, pos_start, device, noise_mask_val)
        if pos_start[0] == 1:  # captions start at frame 1, images behind the caption
            return padded
        feat, positions, pad_mask, total, noise_mask = padded
        missing = num_pads - int(pad_mask.sum())
        if missing < 0:
            raise ValueError(f"the pipeline pads with {num_pads - missing} tokens, more than the {num_pads} asked for")
        return (
            torch.cat([feat, feat[-1:].expand(missing, -1)]),
            torch.cat([positions, positions.new_zeros(missing, positions.shape[1])]),
            torch.cat([pad_mask, pad_mask.new_ones(missing)]),
            total + missing,
            noise_mask,
        )

    return pad_with_ids
