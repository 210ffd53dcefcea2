"""Base classes of engines and of the bugs planted in them; what an engine is given and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from harness.plugins.option import Option
from harness.types import Axis, Cache, Case, Device, DType, Layout, ModelSpec, RunSpec, Times, Variant


@dataclass
class Worker:
    """Rank, device and model of the process an engine runs in, and the engine's way to report from it."""

    rank: int
    world_size: int
    device: Device
    model_path: str
    dtype: DType
    progress: Callable[[int], None] = lambda step: None
    """To be called after each denoise step with the number of steps done."""
    counters: dict[str, int] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Values of what the engine's ``load_time`` names, equal in all runs of this process."""
    cache_decisions: tuple[bool, ...] = ()
    """For each step of the current request, whether a cache served it; empty without a cache."""

    def count(self, name: str, amount: int) -> None:
        """Add to a counter of the current request; the run records the sum over all ranks."""
        self.counters[name] = self.counters.get(name, 0) + amount


@dataclass
class Drawing:
    """Result of a request."""

    images: list[Any]
    """PIL pictures."""
    latents: Any
    """Final latents, float32 ``B,C,H,W``."""
    trajectory: Any = None
    """Latents after each step, ``T,B,C,H,W``; without them no verdict names the step where a difference begins."""
    times: Times = field(default_factory=Times)
    caption_tokens: tuple[int, ...] = ()
    """Tokens of each prompt, without fill."""


class Engine(ABC):
    """A diffusion engine, instantiated once in each rank's process. Required are ``name``, ``load`` and ``draw``.

    Class attributes and class methods are also read where the engine's packages are not installed: import these
    in ``load``, not at the top of the file.
    """

    name: ClassVar[str]
    baseline: ClassVar[str] = "diffusers"
    """Engine that draws its baseline and its replays, on one device of the harness' own environment."""
    axes: ClassVar[tuple[Axis, ...]] = ("none",)
    """Values a variant's ``axis`` may take; ``("none",)`` for engines that split the flat sequence or nothing."""
    layouts: ClassVar[tuple[Layout, ...]] = ("aligned",)
    """Values a variant's ``layout`` may take."""
    caches: ClassVar[tuple[Cache, ...]] = ("none",)
    """Values a variant's ``cache`` may take. An engine with a cache sets :attr:`Worker.cache_decisions`."""
    options: ClassVar[Mapping[str, Option]] = {}
    """Keys a variant's ``options`` may hold. Those that start with ``cache_`` reach the baseline too."""
    own_arithmetic: ClassVar[bool] = False
    """Whether its modules are not the baseline's, so that it may lie beyond the noise floor on one device already.
    The split is then judged against its own control (``docs/words.md``)."""
    control_db: ClassVar[Mapping[DType, float]] = {}
    """Latents PSNR in dB, by dtype, that the control of an engine with arithmetic of its own keeps where it does not
    reach the noise floor. Never for float32, which shows whether the mathematics is the same."""
    takes_image_pads: ClassVar[bool] = False
    """Whether ``draw`` honours ``spec.image_pad_tokens`` on one device, as a baseline has to."""
    load_time: ClassVar[tuple[str, ...]] = ()
    """What of a variant ``load`` has to know: ``ulysses``, ``ring``, ``layout``, ``cache``, names of options. Runs
    that differ in one of them get processes of their own, told by :attr:`Worker.configuration`."""
    process: ClassVar[str] = ""
    """Engines that give one name here themselves (not by inheritance) may serve in one process, one after the other;
    any other has its processes for itself."""
    own_environment: ClassVar[bool] = False
    """Whether its packages are usually installed in an environment of their own (``docs/engines.md``): where they are
    not in this one and a row names no other, it is a skip instead of a mistake."""
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Distributions whose versions decide the result: they enter digest and report. Where ``torch`` is among them,
    ranks set it to one thread and join a process group (NCCL or gloo) before ``load``."""

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Give the reason why this engine cannot draw the case (the text of a skip), or ``None``. Imports no torch."""
        return None

    @classmethod
    def image_pads(cls, case: Case, variant: Variant, model: ModelSpec) -> int | None:
        """Count all pads of the image sequence when a case is split with axis ``none``; ``None`` where unknown.

        They are attended to, so the replay has to have as many. With axis ``h`` or ``w`` the plan counts them.
        """
        return None

    @classmethod
    def faults(cls) -> Sequence[str]:
        """List the values a variant's ``fault`` may take; ``draw`` has to switch on ``spec.fault``."""
        return ()

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name modules to import once, in the process that ranks are forked from.

        Importing them must start no thread, touch no GPU and change no module of another distribution: ranks of
        every engine are forked from that process.
        """
        return ()

    @classmethod
    def option(cls, spec: RunSpec, name: str) -> Any:
        """Return the value of an option for one request: the variant's, else the declared default."""
        return spec.options.get(name, cls.options[name].default)

    @classmethod
    def process_name(cls) -> str:
        """Name the processes that serve this engine."""
        return vars(cls).get("process") or cls.name

    @classmethod
    def configuration(cls, spec: RunSpec) -> dict[str, Any]:
        """Collect what ``load`` has to know of a request, by the names in ``load_time``."""
        return {name: cls.option(spec, name) if name in cls.options else getattr(spec, name) for name in cls.load_time}

    @abstractmethod
    def load(self, worker: Worker) -> None:
        """Make the model resident; called once in each rank's process, its process group already joined."""

    @abstractmethod
    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request; called on all ranks at once. The drawing of rank 0 counts, others may return ``None``.

        An engine that is another's ``baseline`` also has to honour ``spec.image_pad_tokens`` (pads of the image
        sequence, for replays) and ``spec.token_order`` (for the noise floor), and to compute each ``spec.repeat`` anew.
        """


class Fault(ABC):
    """A planted bug, switched on for one request by ``fault = "..."`` in a variant."""

    name: ClassVar[str]
    source: ClassVar[str]
    """Public thread the bug is modelled on."""
    cause: ClassVar[str]
    """Cause a correct diagnosis must name."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Classes of :mod:`harness.matrix.coverage` that a row must meet to show the bug."""

    @abstractmethod
    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Switch the bug on in this process for the length of the context."""
