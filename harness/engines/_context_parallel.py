"""diffusers' context parallelism on Z-Image: its plan, and what gloo and a machine without an accelerator need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from harness.models.z_image import CP_GATHER, CP_MASKS, CP_SPLIT
from harness.types import Device


def plan(transformer: Any, cut_masks: bool) -> dict[str, Any]:
    """Make diffusers' plan of the model's data; a part for each name, and no name twice."""
    from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

    cut: Any = ContextParallelInput(split_dim=1, expected_dims=3)
    cut_mask: Any = ContextParallelInput(split_dim=1, expected_dims=2)
    made: dict[str, Any] = {}
    for name, arguments in CP_SPLIT.items():
        made.setdefault(name, {}).update(dict.fromkeys(arguments, cut))
    for name, arguments in CP_MASKS.items() if cut_masks else ():
        made.setdefault(name, {}).update(dict.fromkeys(arguments, cut_mask))
    for name in CP_GATHER:
        stack, _, place = name.partition(".")
        last = f"{stack}.{len(getattr(transformer, stack)) - 1}" if place == "-1" else name
        made[last] = ContextParallelOutput(gather_dim=1, expected_dims=3)
    return made


def enable(transformer: Any, device: Device, cut_masks: bool = False, **degrees: Any) -> None:
    """Let a transformer share its sequence with the other ranks; collective over all of them, once in a process."""
    import torch
    from diffusers import ContextParallelConfig

    # diffusers numbers ranks by the accelerators there are, and divides by none on a CPU.
    one = patch.object(torch.accelerator, "device_count", lambda: 1) if device == "cpu" else nullcontext()
    with one:
        transformer.enable_parallelism(config=ContextParallelConfig(**degrees), cp_plan=plan(transformer, cut_masks))


@contextmanager
def uneven_gathers() -> Iterator[None]:
    """Gather tensors of different lengths through gloo, which refuses them: padded to the longest, and cropped."""
    import torch
    import torch.distributed as dist

    stock = dist.all_gather

    def all_gather(parts: Sequence[torch.Tensor], part: torch.Tensor, **named: Any) -> Any:
        if len({each.shape for each in parts}) == 1:
            return stock(list(parts), part, **named)
        longest = max(each.numel() for each in parts)
        padded = [part.new_empty(longest) for _ in parts]
        sent = torch.cat([part.reshape(-1), part.new_zeros(longest - part.numel())])
        done = stock(padded, sent, **named)
        for each, found in zip(parts, padded, strict=True):
            each.copy_(found[: each.numel()].view_as(each))
        return done

    with patch.object(dist, "all_gather", all_gather):
        yield
