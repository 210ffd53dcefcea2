"""Runs: nodes of the run graph before and after they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from statistics import median
from typing import Any, Literal

from harness.types.plan import ShardPlan
from harness.types.request import Case
from harness.types.values import SCHEMA, Cache, Layout, TokenOrder, check_plain_name, digest_of


@dataclass(frozen=True)
class RunSpec:
    """One node of the run graph: all that decides what a run computes.

    Two rows that come to an equal digest share the run: a baseline, a replay with an equal pad
    count, ``auto`` and the axis it chose.
    """

    case: Case
    engine: str
    model_path: str
    weights: str
    source: str
    ulysses: int = 1
    ring: int = 1
    layout: Layout = "aligned"
    cache: Cache = "none"
    fault: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    environment: str = ""
    """Name of the engine's environment (``environments.toml``)."""
    interpreter: str = ""
    """Its interpreter on this machine; empty for that of the harness."""
    plan: ShardPlan | None = None
    image_pad_tokens: int | None = None
    """Replay and padded control: pads in all of the image sequence on one device; ``None`` leaves it alone."""
    token_order: TokenOrder = "native"
    """Noise floor: the baseline with its image tokens in another order, which is the same mathematics."""
    repeat: int = 0
    """Counts the same run over: a second one shows whether the machine computes the same twice."""
    sequence: str = ""
    """Sequence this request belongs to; its requests have an engine of their own."""
    after: str = ""
    """Digest of the request served before in the sequence: what came before may decide what comes out."""
    probe: bool = False
    """Record what happens inside (:mod:`harness.worker.probe`); such a run only explains another one."""

    @property
    def world_size(self) -> int:
        """Processes this run needs."""
        return self.ulysses * self.ring

    @property
    def engine_label(self) -> str:
        """Engine and environment, ``sglang@0.5.9``."""
        return f"{self.engine}@{self.environment}" if self.environment else self.engine

    @cached_property
    def digest(self) -> str:
        """Address of the run: 16 hexadecimal digits over everything but names, paths and limits."""
        decisive = {field.name: getattr(self, field.name) for field in fields(self)}
        del decisive["model_path"], decisive["interpreter"]
        decisive["case"] = self.case.identity()
        decisive["plan"] = self.plan and asdict(self.plan)
        if not self.probe:  # a run without a probe is what it was before there were probes
            del decisive["probe"]
        if not self.environment:  # nor is one in the environment of the harness changed by there being others
            del decisive["environment"]
        return digest_of(decisive)[:16]


class FailureKind(StrEnum):
    """Kinds of failure of a run; the first two are the engine's fault, the others the machine's."""

    RAISED = "raised"
    HUNG = "hung"
    KILLED = "killed"
    OUT_OF_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    LAUNCH = "launch"
    STOPPED = "stopped"
    EXHAUSTED = "exhausted"

    @property
    def infrastructure(self) -> bool:
        """Whether the machine is to blame rather than the engine."""
        return self not in (FailureKind.RAISED, FailureKind.HUNG)


@dataclass(frozen=True)
class Failure:
    """Why a run has no picture: one line, the rank, and its traceback or stacks."""

    kind: FailureKind
    message: str
    rank: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Times:
    """Seconds by part, measured inside the process that decodes."""

    text_s: float = 0.0
    steps_s: tuple[float, ...] = ()
    decode_s: float = 0.0
    total_s: float = 0.0

    @property
    def typical_step_s(self) -> float | None:
        """Median of the steps without the first, which also warms caches up; ``None`` where none was timed."""
        return median(self.steps_s[1:] or self.steps_s) if self.steps_s else None


@dataclass(frozen=True)
class Recorded:
    """Size and SHA-256 of a file when its run was published."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Run:
    """Result of one run (``run.json``); file names are relative to the run's own folder."""

    spec: RunSpec
    outcome: Literal["ok", "error", "timeout"]
    images: tuple[str, ...] = ()
    latents: str | None = None
    failure: Failure | None = None
    times: Times = Times()
    wall_s: float = 0.0
    peak_memory_bytes: tuple[int, ...] = ()
    caption_tokens: tuple[int, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Sums over all ranks of what the engine counted, such as ``exchanged_bytes``."""
    cache_decisions: tuple[tuple[bool, ...], ...] = ()
    """For each rank and step, whether a cache served it; empty without a cache."""
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    started_at: str = ""
    files: Mapping[str, Recorded] = field(default_factory=dict, hash=False)
    """Pictures and latents as they were written; empty in runs of earlier versions."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in self.file_names:
            check_plain_name(name, "file")

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of its pictures and latents."""
        return (*self.images, *([self.latents] if self.latents else []))
