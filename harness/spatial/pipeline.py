"""The denoise loop of one rank: prompt to picture.

Noise, time steps and scheduler are those of the pipeline on one device: noise is drawn whole on every
rank from the same seed and then cut, and the schedule's shift comes from the whole picture.
"""

from __future__ import annotations

import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
    retrieve_timesteps,
)

from harness.probe.clock import Clock
from harness.spatial import shard
from harness.spatial.transformer import SpatialTransformer
from harness.types import Case, Drawing, ShardPlan, Times, Worker


class SpatialPipeline:
    """Z-Image over a group of ranks, around the modules of a loaded ``ZImagePipeline``."""

    def __init__(self, pipeline: ZImagePipeline, group: shard.SequenceGroup, worker: Worker) -> None:
        self.pipeline = pipeline
        self.group = group
        self.worker = worker
        self.transformer = SpatialTransformer(pipeline.transformer, group)

    @torch.no_grad()
    def __call__(self, case: Case, plan: ShardPlan) -> Drawing | None:
        """Draw one case; only rank 0 decodes and returns the picture."""
        clock = Clock(self.worker.device)
        captions = self._encode(case)
        text_s = clock.lap()
        latents, trajectory, steps_s = self._denoise(case, captions, plan, clock)
        if self.group.rank != 0:
            return None
        images = self._decode(latents)
        decode_s = clock.lap()
        return Drawing(
            images=images,
            latents=latents.float().cpu().numpy(),
            trajectory=trajectory.float().cpu().numpy(),
            times=Times(text_s, tuple(steps_s), decode_s, clock.total()),
            caption_tokens=tuple(len(caption) for caption in captions[:: case.num_images_per_prompt]),
        )

    def _encode(self, case: Case) -> list[torch.Tensor]:
        captions, _ = self.pipeline.encode_prompt(list(case.prompts), do_classifier_free_guidance=False)
        return [caption for caption in captions for _ in range(case.num_images_per_prompt)]

    def _denoise(
        self, case: Case, captions: list[torch.Tensor], plan: ShardPlan, clock: Clock
    ) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
        """Return the final latents ``B,C,H,W`` and those after each step ``T,B,C,H,W``, gathered."""
        latents = shard.cut(self._noise(case), plan, self.group.rank)
        scheduler = self.pipeline.scheduler
        after, steps_s = [], []
        for number, t in enumerate(self._timesteps(case), 1):
            timestep = ((1000 - t) / 1000).expand(case.num_images)
            velocity = self.transformer(latents.to(self.transformer.dtype), timestep, captions, plan)
            latents = scheduler.step(-velocity.float(), t, latents, return_dict=False)[0]
            after.append(latents)
            steps_s.append(clock.lap())
            self.worker.progress(number)
        trajectory = shard.gather(torch.stack(after), plan, self.group)
        return trajectory[-1], trajectory, steps_s

    def _noise(self, case: Case) -> torch.Tensor:
        """Noise of the whole picture, float32, from a generator on the CPU."""
        pipeline = self.pipeline
        return pipeline.prepare_latents(
            case.num_images,
            pipeline.transformer.in_channels,
            case.size.height_px,
            case.size.width_px,
            torch.float32,
            pipeline._execution_device,
            torch.Generator("cpu").manual_seed(case.seed),
        )

    def _timesteps(self, case: Case) -> torch.Tensor:
        scheduler = self.pipeline.scheduler
        shift_keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
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
