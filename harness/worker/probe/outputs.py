"""Which module of the denoiser is at work, and what its blocks hand on: listened to for one draw.

Nothing is wrapped or replaced. Torch tells of every module that begins and ends (its global hooks); the
names come from the denoiser itself, so any engine that keeps the blocks' names can be listened to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

DENOISER_SIGN = "noise_refiner.0"
"""A module that holds a block of this name is the denoiser: text encoders have ``layers`` too."""

PREPARING_SIGN = "context_refiner.0"
"""A module that holds a block of this name and is not the denoiser computes ahead of its next forward call."""

SKETCH = 16
"""Numbers kept of each token: its projections on as many fixed random directions. Distances between tokens
survive this to about a fifth, and a full-size model's trace shrinks two hundred times."""


class Trace:
    """The denoiser's progress through one draw.

    Attributes
    ----------
    step
        Number of the denoiser's forward call at work, or of the next one while something is computed ahead of it:
        1 during the first denoise step.
    module
        Block at work, such as ``layers.0``; ``None`` between blocks and outside the denoiser.
    rows
        Sketches of what each block handed on: ``(step, module)`` to ``B,S,16`` or ``N,16`` float32.
    skipped
        Steps that were not recorded.
    """

    def __init__(self, steps: frozenset[int]) -> None:
        self.step = 0
        self.module: str | None = None
        self.rows: dict[tuple[int, str], torch.Tensor] = {}
        self.skipped: list[int] = []
        self._calls = 0
        self._steps = steps
        self._depth = 0
        self._names: dict[nn.Module, dict[nn.Module, str]] = {}
        self._denoiser: nn.Module | None = None
        self._block: nn.Module | None = None
        self._directions: dict[int, torch.Tensor] = {}

    @property
    def recorded(self) -> bool:
        """Whether this step is one to be recorded."""
        return self.step in self._steps

    def begun(self, module: nn.Module, arguments: Any) -> None:
        """Take note of a module that begins."""
        if self._denoiser is None:
            if module not in self._names:
                self._names[module] = _names_of_blocks(module)
            names = self._names[module].values()
            if DENOISER_SIGN in names:
                self._denoiser = module
                self._calls = self.step = self._calls + 1
                if not self.recorded:
                    self.skipped.append(self.step)
            elif PREPARING_SIGN in names:
                self._denoiser, self.step = module, self._calls + 1
        elif self._block is None and module in self._names[self._denoiser]:
            self._block, self.module = module, self._names[self._denoiser][module]

    def ended(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Take note of a module that ends, and keep a sketch of what a block hands on."""
        if module is self._denoiser:
            self._denoiser = self._block = self.module = None
        elif module is self._block and self.module is not None:
            if self.recorded and isinstance(output, torch.Tensor):
                self.rows[self.step, self.module] = self._sketch(output)
            self._block = self.module = None

    def _sketch(self, output: torch.Tensor) -> torch.Tensor:
        width = output.shape[-1]
        if width not in self._directions:
            drawn = torch.randn(width, SKETCH, generator=torch.Generator().manual_seed(0)) / SKETCH**0.5
            self._directions[width] = drawn.to(output.device)
        return (output.detach().float() @ self._directions[width]).cpu()


@contextmanager
def listening(trace: Trace) -> Iterator[None]:
    """Tell ``trace`` of every module for the length of the context."""
    hooks = [
        register_module_forward_pre_hook(trace.begun),
        register_module_forward_hook(trace.ended),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _names_of_blocks(root: nn.Module) -> dict[nn.Module, str]:
    """Name the outermost elements of lists and dictionaries of modules: ``layers.0``, wherever they stand."""
    names: dict[nn.Module, str] = {}

    def visit(module: nn.Module, name: str) -> None:
        listed = isinstance(module, nn.ModuleList | nn.ModuleDict)
        for key, child in module.named_children():
            if listed:
                names[child] = f"{name}.{key}"
            else:
                visit(child, key)

    visit(root, "")
    return names
