"""The denoise loop of one rank: prompt to picture.

Noise, time steps and scheduler are those of the pipeline on one device: noise is drawn whole on every
rank from the same seed and then cut, and the schedule's shift comes from the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
    retrieve_timesteps,
)

from harness.plugins import Drawing, Worker
from harness.spatial import shard
from harness.spatial.attention import ExchangeMode
from harness.spatial.group import SequenceGroup
from harness.spatial.steps import EagerSteps, Step, Steps
from harness.spatial.transformer import SpatialTransformer
from harness.types import Case, ShardPlan, Times
from harness.worker.clock import Clock


class SpatialPipeline:
    """Z-Image over a group of ranks, around the modules of a loaded ``ZImagePipeline``.

    Nothing of a request outlives it: the plan travels with each call.
    """

    def __init__(
        self, pipeline: ZImagePipeline, group: SequenceGroup, worker: Worker, exchange: ExchangeMode = "separate"
    ) -> None:
        self.pipeline = pipeline
        self.group = group
        self.worker = worker
        self.transformer = SpatialTransformer(pipeline.transformer, group, exchange)

    @torch.no_grad()
    def __call__(self, case: Case, plan: ShardPlan, steps: Steps | None = None) -> Drawing | None:
        """Draw one case; only the group's first rank decodes and returns the pictures.

        Parameters
        ----------
        case, plan
            The request, and how it is cut.
        steps
            How its steps are computed; eagerly by default.
        """
        clock = Clock(self.worker.device)
        captions, negatives = self._encode(case)
        text_s = clock.lap()
        trajectory, steps_s = self._denoise(case, plan, [*captions, *negatives], steps or EagerSteps(), clock)
        if self.group.whole.rank != 0:
            return None
        images = self._decode(trajectory[-1])
        decode_s = clock.lap()
        moved = trajectory.float().cpu().numpy()
        return Drawing(
            images=images,
            latents=moved[-1],
            trajectory=moved,
            times=Times(text_s, tuple(steps_s), decode_s, clock.total()),
            caption_tokens=tuple(len(caption) for caption in captions[:: case.num_images_per_prompt]),
        )

    def _encode(self, case: Case) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Captions and negative captions, one of each for every picture."""
        prompt_sets = self.pipeline.encode_prompt(
            list(case.prompts),  # the pipeline overwrites the lists it is given
            do_classifier_free_guidance=case.guidance_scale > 0,
            negative_prompt=list(case.negative_prompts) or None,
        )
        captions, negatives = (
            [caption for caption in prompts for _ in range(case.num_images_per_prompt)] for prompts in prompt_sets
        )
        return captions, negatives

    def _denoise(
        self, case: Case, plan: ShardPlan, captions: Sequence[torch.Tensor], steps: Steps, clock: Clock
    ) -> tuple[torch.Tensor, list[float]]:
        """Latents after each step, ``T,B,C,H,W``, gathered; and the seconds of each step."""
        latents = shard.cut(self._noise(case), plan, self.group.whole.rank)
        conditions = self.transformer.prepare(captions, plan)
        step = steps.begin(self.transformer, self._items(case, latents), conditions)
        after, steps_s = [], []
        for number, t in enumerate(self._timesteps(case), 1):
            velocity = self._velocity(case, latents, t, step)
            latents = self.pipeline.scheduler.step(-velocity, t, latents, return_dict=False)[0]
            after.append(latents)
            steps_s.append(clock.lap())
            self.worker.progress(number)
        return shard.gather(torch.stack(after), plan, self.group.whole), steps_s

    def _items(self, case: Case, latents: torch.Tensor) -> torch.Tensor:
        """Return the model's input; with guidance, both halves of the batch are one call."""
        items = latents.to(self.transformer.dtype)
        return items.repeat(2, 1, 1, 1) if case.guidance_scale > 0 else items

    def _velocity(self, case: Case, latents: torch.Tensor, t: torch.Tensor, step: Step) -> torch.Tensor:
        """Prediction of the model in float32."""
        items = self._items(case, latents)
        predicted = step(items, ((1000 - t) / 1000).expand(len(items))).float()
        if case.guidance_scale <= 0:
            return predicted
        positive, negative = predicted.chunk(2)
        return positive + case.guidance_scale * (positive - negative)

    def _noise(self, case: Case) -> torch.Tensor:
        """Noise of the whole picture, float32, from a generator on the CPU."""
        pipeline = self.pipeline
        noise: torch.Tensor = pipeline.prepare_latents(
            case.num_images,
            pipeline.transformer.in_channels,
            case.size.height_px,
            case.size.width_px,
            torch.float32,
            pipeline._execution_device,
            torch.Generator("cpu").manual_seed(case.seed),
        )
        return noise

    def _timesteps(self, case: Case) -> torch.Tensor:
        scheduler = self.pipeline.scheduler
        shift_keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        timesteps: torch.Tensor
        timesteps, _ = retrieve_timesteps(
            scheduler,
            case.steps,
            self.pipeline._execution_device,
            sigmas=get_default_z_image_sigmas(case.steps),
            mu=calculate_shift(case.size.tokens, *(scheduler.config[key] for key in shift_keys)),
        )
        scheduler.set_begin_index(0)
        return timesteps

    def _decode(self, latents: torch.Tensor) -> list[object]:
        """Latents ``B,C,H,W`` to PIL pictures."""
        vae = self.pipeline.vae
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        decoded = vae.decode(scaled, return_dict=False)[0]
        return list(self.pipeline.image_processor.postprocess(decoded, output_type="pil"))
