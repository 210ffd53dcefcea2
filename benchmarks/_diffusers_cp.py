"""diffusers' own context parallelism on Z-Image, for comparison: stock pipeline, hooks, and a plan by hand.

diffusers ships no plan for this model. Here the padded sequence itself is cut into equal parts, tokens and
frequencies alike: the image's in front of its refiners, image and caption together in front of the main layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol
from diffusers import ContextParallelConfig
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

from harness import plugins
from harness.plugins import Drawing, Worker
from harness.types import RunSpec

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


@contextmanager
def _counted(worker: Worker) -> Iterator[None]:
    """Count what this rank sends to the others, in the three calls that diffusers sends by."""

    def all_to_all(sent: torch.Tensor, received: Any, lengths: Any, *more: Any) -> Any:
        kept = lengths[worker.rank] / sum(lengths) if lengths else 1 / worker.world_size
        worker.count("exchanged_bytes", round(sent.nbytes * (1 - kept)))
        return exchange(sent, received, lengths, *more)

    def gather_tensor(part: torch.Tensor, *more: Any, **named: Any) -> Any:
        worker.count("exchanged_bytes", part.nbytes * (worker.world_size - 1))
        return gather_equal(part, *more, **named)

    def gather(parts: list[torch.Tensor], part: torch.Tensor, **named: Any) -> Any:
        worker.count("exchanged_bytes", part.nbytes * (worker.world_size - 1))
        return gather_any(parts, part, **named)

    exchange, gather_equal, gather_any = funcol.all_to_all_single, funcol.all_gather_tensor, dist.all_gather
    with (
        patch.object(funcol, "all_to_all_single", all_to_all),
        patch.object(funcol, "all_gather_tensor", gather_tensor),
        patch.object(dist, "all_gather", gather),
    ):
        yield


class DiffusersContextParallel:
    """The baseline engine, its transformer told to share the sequence with the other ranks."""

    def __init__(self) -> None:
        self.stock: Any = plugins.load("engines", "diffusers")()
        self.packages = self.stock.packages

    def load(self, worker: Worker) -> None:
        """Load the checkpoint and put the hooks in; collective over all ranks."""
        self.worker = worker
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
        with _counted(self.worker):
            drawing: Drawing = self.stock.draw(spec)
        return drawing if dist.get_rank() == 0 else None
