"""What plugins must offer, and what they are given and return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from harness.types.comparison import Figure
from harness.types.report import Report
from harness.types.request import Case, ModelSpec, Variant
from harness.types.run import RunSpec, Times
from harness.types.values import Axis, Device, Domain, DType


@dataclass
class Worker:
    """Where an engine finds itself: its rank, its device, its model."""

    rank: int
    world_size: int
    device: Device
    model_path: str
    dtype: DType
    progress: Callable[[int], None] = lambda step: None
    """To be called after each denoise step with the number of steps done."""
    counters: dict[str, int] = field(default_factory=dict)
    cache_decisions: tuple[bool, ...] = ()
    """For each step of the current request, whether a cache served it; empty without a cache."""

    def count(self, name: str, amount: int) -> None:
        """Add to a counter of the current request; the run records the sum over all ranks."""
        self.counters[name] = self.counters.get(name, 0) + amount


@dataclass
class Drawing:
    """What an engine returns on rank 0 (other ranks return ``None``).

    ``images`` are PIL pictures; ``latents`` is a float32 array ``B,C,H,W``; ``trajectory`` holds the
    latents after each step, ``T,B,C,H,W``.
    """

    images: list[Any]
    latents: Any
    trajectory: Any
    times: Times
    caption_tokens: tuple[int, ...] = ()


class Engine(Protocol):
    """A diffusion engine. One file in ``harness/engines``; the class is instantiated in each rank.

    A class may have ``preload(spec)``, which names the modules that a run needs: they are imported once, in
    the process that ranks are forked from. Importing them must start no thread and touch no GPU.
    """

    name: ClassVar[str]
    baseline: ClassVar[str]
    """Engine that draws its baseline and its replays, on one device."""
    axes: ClassVar[tuple[Axis, ...]]
    """Values a variant's ``axis`` may take; ``("none",)`` for engines that split tokens or do not split."""
    options: ClassVar[tuple[str, ...]]
    """Keys a variant's ``options`` may hold."""
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide what this engine computes."""

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Why this engine cannot do the case (the text of a skip), or ``None``. Must not import torch."""

    @classmethod
    def faults(cls) -> Sequence[str]:
        """Names a variant's ``fault`` may take."""

    def load(self, worker: Worker) -> None:
        """Make the model resident; called once in each rank's process."""

    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request; called on all ranks at once."""


class Metric(Protocol):
    """A figure over two arrays of equal shape. One file in ``harness/metrics``.

    A class that says ``needs_plan = True`` is made with the candidate's :class:`ShardPlan` as its argument,
    and measured only where the picture is cut. One that says ``takes_device = True`` is made with ``device=``,
    the GPU it may compute on, as torch names it, or ``None``. Every other one is made without arguments.
    """

    name: ClassVar[str]
    variant: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    domains: ClassVar[tuple[Domain, ...]]

    def measure(self, reference: Any, candidate: Any, domain: Domain) -> Figure:
        """Compare two arrays that differ somewhere, and that are there for reading alone.

        ``image``: uint8 ``H,W,3``, data range 255. ``latents``: float32 ``C,H,W``, data range the span of
        the reference.
        """


class Reporter(Protocol):
    """A report format. One file in ``harness/reporters``."""

    name: ClassVar[str]

    def write(self, report: Report, folder: Path) -> Path:
        """Write the report into the run's folder and return the file to open."""


class Fault(Protocol):
    """A planted bug. One file in ``harness/faults``."""

    name: ClassVar[str]
    source: ClassVar[str]
    """Public thread the bug is modelled on."""
    cause: ClassVar[str]
    """Cause a correct diagnosis must name."""
    needs: ClassVar[tuple[str, ...]]
    """Classes of :mod:`harness.matrix.coverage` that a row must meet to show the bug."""

    def plant(self, worker: Worker) -> AbstractContextManager[None]:
        """Switch the bug on in this process for the length of the context."""
