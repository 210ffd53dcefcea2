"""Plugins: their base classes, what these are given and return, and how a plugin is found.

    from harness.plugins import Drawing, Engine, Option, Worker     an engine
    from harness.plugins import Context, Metric                     a metric
    from harness.plugins import Fault, Worker                       a planted bug
    from harness.plugins import Reporter                            a report format

One file in ``harness/engines``, ``metrics``, ``faults`` or ``reporters`` is one plugin. It holds one class with the
plugin's ``name``; underscores in the file's name become hyphens. Other distributions add plugins through the
entry-point groups ``sp_harness.engines``, ``sp_harness.metrics`` and so on.

A plugin is imported when it is asked for: listing engines costs nothing, and one that is broken or whose packages
are not installed does not affect the others. Standard library only, since engines' own interpreters load this too.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import UsageError, did_you_mean
from harness.types import (
    Axis,
    Cache,
    Case,
    Device,
    Domain,
    DType,
    Figure,
    Layout,
    ModelSpec,
    Report,
    RunSpec,
    ShardPlan,
    Times,
    Variant,
)

__all__ = [
    "KINDS",
    "Context",
    "Drawing",
    "Engine",
    "Fault",
    "Metric",
    "Option",
    "Reporter",
    "Worker",
    "load",
    "load_all",
    "names",
]

Value = bool | int | float | str
"""Value of an option, as TOML has it."""

_TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


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


@dataclass(frozen=True)
class Option:
    """Declaration of one key that a variant's ``options`` may hold; planning refuses any other value.

    An integer is also taken where a float is asked for.
    """

    type: type[Value]
    default: Value | None = None
    """Used where a variant does not name the option; ``None`` where that depends, which ``help`` explains."""
    help: str = ""
    """One line for a person who writes a matrix."""
    choices: tuple[Value, ...] = ()
    """All values there are; empty where any of the type will do."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    """Limits of a number: at least, above, at most, below."""
    pattern: str = ""
    """Regular expression that the whole text must match; ``help`` says it in words."""

    def problem(self, value: Any) -> str | None:
        """Say what to write instead of ``value``, or ``None`` where it is allowed."""
        if self.choices:
            allowed = any(value == choice and type(value) is type(choice) for choice in self.choices)
            return None if allowed else did_you_mean(str(value), [_as_toml(choice) for choice in self.choices])
        fits = type(value) is self.type or (self.type is float and type(value) is int)
        if fits and self._in_range(value) and re.fullmatch(self.pattern or ".*", str(value), re.DOTALL):
            return None
        return f"write {self.values()}" + (f": {self.help}" if self.help and self.pattern else "")

    def values(self) -> str:
        """Describe the allowed values in a few words, such as ``a number above 0 and below 1``."""
        if self.choices:
            return "one of " + ", ".join(map(_as_toml, self.choices))
        limits = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        parts = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
        return " ".join([_TYPE_NAMES[self.type], " and ".join(parts)]).strip()

    def _in_range(self, value: Any) -> bool:
        return not (
            (self.ge is not None and value < self.ge)
            or (self.gt is not None and value <= self.gt)
            or (self.le is not None and value > self.le)
            or (self.lt is not None and value >= self.lt)
        )


def _as_toml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Distributions whose versions decide the result: they enter digest and report. Where ``torch`` is among them,
    ranks set it to one thread and join a process group (NCCL or gloo) before ``load``."""

    @classmethod
    def limits(cls, case: Case, variant: Variant, model: ModelSpec) -> str | None:
        """Give the reason why this engine cannot draw the case (the text of a skip), or ``None``. Imports no torch."""
        return None

    @classmethod
    def faults(cls) -> Sequence[str]:
        """List the values a variant's ``fault`` may take; ``draw`` has to switch on ``spec.fault``."""
        return ()

    @classmethod
    def preload(cls, spec: RunSpec) -> Sequence[str]:
        """Name modules to import once, in the process that ranks are forked from.

        Importing them must start no thread and touch no GPU.
        """
        return ()

    @classmethod
    def option(cls, spec: RunSpec, name: str) -> Any:
        """Return the value of an option for one request: the variant's, else the declared default."""
        return spec.options.get(name, cls.options[name].default)

    @abstractmethod
    def load(self, worker: Worker) -> None:
        """Make the model resident; called once in each rank's process."""

    @abstractmethod
    def draw(self, spec: RunSpec) -> Drawing | None:
        """Serve one request; called on all ranks at once. The drawing of rank 0 counts, others may return ``None``.

        An engine that is another's ``baseline`` also has to honour ``spec.image_pad_tokens`` (pads of the image
        sequence, for replays) and ``spec.token_order`` (for the noise floor).
        """


@dataclass(frozen=True)
class Context:
    """Circumstances of a measurement, beside the two arrays."""

    plan: ShardPlan | None = None
    """The candidate's cut; ``None`` where the picture is not cut."""
    device: str | None = None
    """GPU that a metric may compute on, as torch names it; the CPU has to give the same number."""


class Metric(ABC):
    """A figure over two arrays of equal shape, instantiated once without arguments."""

    name: ClassVar[str]
    variant: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    domains: ClassVar[tuple[Domain, ...]] = ("image", "latents")

    @abstractmethod
    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure | None:
        """Compare two arrays that differ somewhere, and that must not be written to.

        ``image``: uint8 ``H,W,3``, data range 255. ``latents``: float32 ``C,H,W``, data range the span of
        the reference. ``None`` leaves the metric out, as one about shard borders does where nothing is cut.
        """


class Reporter(ABC):
    """A report format."""

    name: ClassVar[str]

    @abstractmethod
    def write(self, report: Report, folder: Path) -> Path:
        """Write the report into the run's folder and return the file to open."""


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


KINDS: Mapping[str, type[Any]] = {"engines": Engine, "metrics": Metric, "faults": Fault, "reporters": Reporter}
"""Base class of each kind of plugin."""


def names(kind: str) -> list[str]:
    """List the names of all plugins of a kind, sorted; nothing is imported."""
    return sorted({*_own(kind), *_foreign(kind)})


def load(kind: str, name: str) -> Any:
    """Import one plugin and return its class.

    Raises
    ------
    UsageError
        If there is no such plugin (the message offers the closest name), if it cannot be imported, or if it is
        not what its base class asks for.
    """
    own, foreign = _own(kind), _foreign(kind)
    if name not in own and name not in foreign:
        raise UsageError(f"there is no {kind.removesuffix('s')} {name!r}; {did_you_mean(name, names(kind))}")
    place = f"harness.{kind}.{name.replace('-', '_')}" if name in own else foreign[name].value
    try:
        found = _class_in(importlib.import_module(place), name) if name in own else foreign[name].load()
    except Exception as error:
        if isinstance(error, UsageError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"{kind.removesuffix('s')} {name!r} ({place}) cannot be imported: {reason}") from error
    if problem := _problem(found, KINDS[kind], name):
        raise UsageError(f"{kind.removesuffix('s')} {name!r} ({place}) {problem}")
    return found


def load_all(kind: str) -> list[Any]:
    """Import every plugin of a kind, in the order of their names."""
    return [load(kind, name) for name in names(kind)]


def _own(kind: str) -> list[str]:
    package = importlib.import_module(f"harness.{kind}")
    return [m.name.replace("_", "-") for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]


def _foreign(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"sp_harness.{kind}")}


def _class_in(module: Any, name: str) -> Any:
    own = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and getattr(member, "name", None) == name
    ]
    if len(own) != 1:
        raise UsageError(f"{module.__name__} must hold one class with name = {name!r}, found {len(own)}")
    return own[0]


def _problem(found: Any, base: type[Any], name: str) -> str | None:
    """Say how a class falls short of its base class, or ``None``."""
    if not (inspect.isclass(found) and issubclass(found, base)):
        return f"is no {base.__name__}: derive its class from harness.plugins.{base.__name__}"
    if getattr(found, "name", None) != name:
        return f"calls itself {getattr(found, 'name', None)!r}: class and entry point need one name"
    declared = [attribute for attribute in inspect.get_annotations(base) if not hasattr(found, attribute)]
    if lacking := [*sorted(getattr(found, "__abstractmethods__", ())), *declared]:
        return f"lacks {', '.join(lacking)}"
    return None
