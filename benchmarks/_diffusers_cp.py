"""diffusers' own context parallelism on Z-Image, for comparison: stock pipeline, hooks, and a plan by hand.

diffusers ships no plan for this model. Here the padded sequence itself is cut into equal parts, tokens and
frequencies alike: the image's in front of its refiners, image and caption together in front of the main layers.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

from harness import registry
from harness.types import Drawing, RunSpec, Worker

SPLIT = ContextParallelInput(split_dim=1, expected_dims=3)
GATHER = ContextParallelOutput(gather_dim=1, expected_dims=3)


def plan(transformer: Any) -> dict[str, Any]:
    """Where tokens are cut and gathered: a part of the plan for each name, and no name twice."""
    made: dict[str, Any] = {}
    for stack in ("noise_refiner", "context_refiner", "layers"):
        made[f"{stack}.0"] = {"x": SPLIT}
        made[f"{stack}.*"] = {"freqs_cis": SPLIT}
    for stack in ("noise_refiner", "context_refiner"):
        # With one block only, this name would be taken; no Z-Image has one.
        made[f"{stack}.{len(getattr(transformer, stack)) - 1}"] = GATHER
    made["all_final_layer.2-1"] = GATHER
    return made


class DiffusersContextParallel:
    """The baseline engine, its transformer told to share the sequence with the other ranks."""

    def __init__(self) -> None:
        self.stock: Any = registry.load("engines", "diffusers")()
        self.packages = self.stock.packages

    def load(self, worker: Worker) -> None:
        """Load the checkpoint and put the hooks in; collective over all ranks."""
        self.stock.load(worker)
        transformer = self.stock.pipeline.transformer
        # Any sequence length: at 3 ranks an equal cut is refused.
        config = ContextParallelConfig(ulysses_degree=worker.world_size, ulysses_anything=worker.world_size > 2)
        # diffusers numbers ranks by the accelerators there are and divides by none on a CPU.
        one = patch.object(torch.accelerator, "device_count", lambda: 1)
        with one if worker.device == "cpu" else nullcontext():
            transformer.enable_parallelism(config=config, cp_plan=plan(transformer))

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Draw as the baseline does; every rank ends with the whole picture, the first returns it."""
        drawing: Drawing = self.stock.draw(spec)
        return drawing if dist.get_rank() == 0 else None
