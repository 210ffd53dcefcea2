"""Which module of the denoiser is at work, and what its blocks hand on: listened to for one draw.

Nothing is wrapped or replaced. Torch tells of every module that begins and ends (its global hooks); the
names come from the denoiser itself, so any engine that keeps the blocks' names can be listened to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from harness.diagnose.inputs import PAD_TOKENS

DENOISER_SIGN = "noise_refiner.0"
"""A module that holds a block of this name is the denoiser: text encoders have ``layers`` too."""

PREPARING_SIGN = "context_refiner.0"
"""A module that holds a block of this name and is not the denoiser computes ahead of its next forward call."""

TIME_EMBEDDER = "t_embedder"
PAD_TOKEN = "pad_token"

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
    times
        Sketch of the time embedding of the first picture, by step.
    weights
        Checksum of the weights that each block used at the first step, and of the learned pad tokens.
    skipped
        Steps that were not recorded.
    """

    def __init__(self, steps: frozenset[int]) -> None:
        self.step = 0
        self.module: str | None = None
        self.rows: dict[tuple[int, str], torch.Tensor] = {}
        self.times: dict[int, torch.Tensor] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.skipped: list[int] = []
        self._calls = 0
        self._steps = steps
        self._depth = 0
        self._names: dict[nn.Module, dict[nn.Module, str]] = {}
        self._denoiser: nn.Module | None = None
        self._block: nn.Module | None = None
        self._directions: dict[int, torch.Tensor] = {}
        self._time_embedder: nn.Module | None = None
        self._summed: set[nn.Module] = set()

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
                self._time_embedder = _named(module, TIME_EMBEDDER)
                self._calls = self.step = self._calls + 1
                if not self.recorded:
                    self.skipped.append(self.step)
            elif PREPARING_SIGN in names:
                self._denoiser, self.step = module, self._calls + 1
        elif self._block is None and module in self._names[self._denoiser]:
            self._block, self.module = module, self._names[self._denoiser][module]
            if self._calls == 1 and PAD_TOKENS not in self.weights:  # as the blocks are given them, not as loaded
                self._sum(PAD_TOKENS, (p for name, p in self._denoiser.named_parameters() if name.endswith(PAD_TOKEN)))
        elif self._block is not None and self.module is not None and self.step == 1 and module not in self._summed:
            self._summed.add(module)
            self._sum(self.module, module.parameters(recurse=False))

    def ended(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Take note of a module that ends, and keep a sketch of what a block hands on."""
        if module is self._denoiser:
            self._denoiser = self._block = self.module = None
        elif module is self._time_embedder and self.recorded and isinstance(output, torch.Tensor):
            self.times[self.step] = self._sketch(output)[0]
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

    def _sum(self, name: str, parameters: Iterable[torch.Tensor]) -> None:
        """Add parameters to a checksum, each number with a weight of its own: one that moves changes it."""
        for parameter in parameters:
            flat = parameter.detach().flatten().float()
            places = torch.arange(len(flat), device=flat.device, dtype=torch.float32).cos_()
            self.weights[name] = self.weights.get(name, torch.zeros(1)) + (flat * places).sum().cpu()


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


def _named(root: nn.Module, name: str) -> nn.Module | None:
    """Find the module of a name, wherever it stands."""
    return next((module for path, module in root.named_modules() if path.rpartition(".")[2] == name), None)


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
