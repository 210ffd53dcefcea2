"""The words of the harness as types, in the order in which data flows through it.

Matrix -> Case x Variant -> AxisChoice / ShardPlan -> RunSpec -> Run -> Comparison -> Verdict
-> Report. Everything here is frozen, holds plain values only and can be written to JSON and
read again by :mod:`harness.codec`. Standard library only: this module is also loaded inside
the interpreters of other engines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Literal, Protocol

SCHEMA = 1
"""Version of every file the harness writes or reads: matrices, run.json, report.json, goldens."""

PIXELS_PER_TOKEN = 16
"""One image token is a 2x2 patch of 8x downsampled latents."""

PROBE_FILE = "probe-rank-{rank}.safetensors"
"""What a probed run leaves of each rank, beside its ``run.json``."""

Axis = Literal["auto", "h", "w", "none"]
Layout = Literal["aligned", "exact"]
Cache = Literal["none", "cache-dit"]
Device = Literal["cpu", "cuda"]
DType = Literal["float32", "bfloat16", "float16"]
GoldenPolicy = Literal["required", "off"]
Domain = Literal["image", "latents"]


# ---------------------------------------------------------------- what to draw, and how


@dataclass(frozen=True, order=True)
class Size:
    """Size of a picture in pixels, always written ``WIDTHxHEIGHT``."""

    width_px: int
    height_px: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read ``"1280x720"``.

        Raises
        ------
        ValueError
            If the text is not WIDTHxHEIGHT, or a side is zero or no multiple of 16.
        """
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
        if not match:
            raise ValueError(f"size {text!r} is not WIDTHxHEIGHT in pixels; write for example '720x1280'")
        width, height = int(match[1]), int(match[2])
        for side in (width, height):
            if side == 0 or side % PIXELS_PER_TOKEN:
                nearest = max(PIXELS_PER_TOKEN, round(side / PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN)
                raise ValueError(
                    f"size {text!r}: {side} is no positive multiple of {PIXELS_PER_TOKEN}; the nearest is {nearest}"
                )
        return cls(width, height)

    @property
    def tokens_h(self) -> int:
        """Rows of image tokens."""
        return self.height_px // PIXELS_PER_TOKEN

    @property
    def tokens_w(self) -> int:
        """Columns of image tokens."""
        return self.width_px // PIXELS_PER_TOKEN

    @property
    def tokens(self) -> int:
        """Image tokens, without pads."""
        return self.tokens_h * self.tokens_w

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True)
class Case:
    """What to draw. How it is computed is a :class:`Variant`; the two are never mixed."""

    name: str
    model: str
    size: Size
    prompts: tuple[str, ...]
    revision: str | None = None
    negative_prompts: tuple[str, ...] = ()
    seed: int = 0
    steps: int = 4
    guidance_scale: float = 0.0
    num_images_per_prompt: int = 1
    dtype: DType = "float32"
    device: Device = "cpu"
    sequence: str | None = None
    """Cases of one sequence are served by one resident engine, in the order of the file."""
    golden: GoldenPolicy = "required"
    timeout_s: float = 120.0

    def identity(self) -> dict[str, Any]:
        """What decides the picture: every field but name, sequence, time limit and golden policy."""
        fields = asdict(self)
        for key in ("name", "sequence", "golden", "timeout_s"):
            del fields[key]
        return fields

    @property
    def key(self) -> str:
        """Name and identity, ``720x720-1f0c9a2b``: unique over matrices, safe in a path."""
        return f"{self.name}-{digest_of(self.identity())[:8]}"

    @property
    def num_images(self) -> int:
        """Pictures one run of this case draws."""
        return len(self.prompts) * self.num_images_per_prompt


@dataclass(frozen=True)
class Variant:
    """How to run a case: the engine and its split."""

    engine: str
    ulysses: int = 1
    ring: int = 1
    axis: Axis = "auto"
    layout: Layout = "aligned"
    cache: Cache = "none"
    fault: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    required: bool = True

    @property
    def degree(self) -> int:
        """Ranks of the sequence-parallel group: Ulysses degree times ring degree."""
        return self.ulysses * self.ring

    @property
    def label(self) -> str:
        """Short unique name inside a matrix, ``spatial-u2-auto``."""
        parts = [self.engine, f"u{self.ulysses}"]
        parts += [f"r{self.ring}"] if self.ring > 1 else []
        parts += [self.axis] if self.axis != "none" else []
        parts += [self.layout] if self.layout != "aligned" else []
        parts += [self.cache] if self.cache != "none" else []
        parts += [self.fault] if self.fault else []
        parts += [f"{key}={value}" for key, value in sorted(self.options.items())]
        return "-".join(parts)


@dataclass(frozen=True)
class Matrix:
    """A matrix file, read and expanded: every case meets every variant."""

    name: str
    path: str
    golden_store: str
    """Folder or fsspec URL of the approved goldens."""
    cases: tuple[Case, ...]
    variants: tuple[Variant, ...]
    pairs: tuple[tuple[str, str], ...]
    """``(case name, variant label)`` in the order of the file; a variant may be limited to some cases."""
    metrics: tuple[str, ...] = ()
    """Metrics to measure; empty for all."""
    declared: tuple[tuple[Relation, Bound], ...] = ()
    """Bounds the file itself states, beside those of :mod:`harness.compare`."""
    golden_digest: str | None = None
    """What the goldens of ``golden_keys`` must come to; ``None`` leaves a folder unpinned."""
    golden_keys: tuple[str, ...] = ()
    """``MODEL/CASE`` of every case that the file holds to a golden, whether or not it was selected."""


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint, found on disk: what planning must know of it without loading it."""

    name: str
    path: str
    weights: str
    num_heads: int
    pad_multiple: int = 32


# ---------------------------------------------------------------- how it is split


@dataclass(frozen=True)
class ShardPlan:
    """A cut of the token grid along one axis; made once per request, travels with it.

    ``shard_tokens`` counts tokens along the axis on each rank, ``local_tokens`` all image tokens of each
    rank, ``sequence_lengths`` what each rank brings to attention, its pads included. In layout ``aligned``
    that is ``sequence_target`` everywhere; in ``exact`` the last rank alone carries pads, as many as one
    device would have.
    """

    axis: Literal["h", "w"]
    feasible: bool
    reason: str
    shard_tokens: tuple[int, ...]
    local_tokens: tuple[int, ...]
    sequence_target: int
    pad_tokens: int
    surplus_pad_tokens: int
    sequence_lengths: tuple[int, ...]
    layout: Layout = "aligned"

    @property
    def origins(self) -> tuple[int, ...]:
        """First token of each rank along the axis."""
        return tuple(sum(self.shard_tokens[:rank]) for rank in range(len(self.shard_tokens)))

    def grid(self, rank: int) -> tuple[int, int]:
        """Rows and columns of tokens that a rank holds."""
        along = self.shard_tokens[rank]
        across = self.local_tokens[rank] // along if along else 0
        return (along, across) if self.axis == "h" else (across, along)


@dataclass(frozen=True)
class AxisChoice:
    """Both cuts of one size, and which of them wins by which rule."""

    size: str
    tokens_h: int
    tokens_w: int
    ulysses: int
    single_pad_tokens: int
    chosen_axis: Literal["h", "w"] | None
    rule: str
    axes: Mapping[str, ShardPlan]

    @property
    def chosen(self) -> ShardPlan | None:
        """The winning cut; ``None`` if neither axis is feasible."""
        return self.axes[self.chosen_axis] if self.chosen_axis else None


# ---------------------------------------------------------------- what is computed


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
    plan: ShardPlan | None = None
    image_pad_tokens: int | None = None
    """Replay: pads the baseline's pipeline must add to its image sequence; ``None`` leaves it alone."""
    token_order: Literal["native", "reversed"] = "native"
    """Noise floor: the baseline with its image tokens in reverse order, which is the same mathematics."""
    repeat: int = 0
    """Counts the same run over: a second one shows whether the machine computes the same twice."""
    sequence: str = ""
    """Sequence this request belongs to; its requests have an engine of their own."""
    after: str = ""
    """Digest of the request served before in the sequence: what came before may decide what comes out."""
    probe: bool = False
    """Record what happens inside (:mod:`harness.probe`); such a run only explains another one."""

    @property
    def world_size(self) -> int:
        """Processes this run needs."""
        return self.ulysses * self.ring

    @cached_property
    def digest(self) -> str:
        """Address of the run: 16 hexadecimal digits over everything but names, paths and limits."""
        fields = asdict(self)
        del fields["model_path"]
        fields["case"] = self.case.identity()
        if not self.probe:  # a run without a probe is what it was before there were probes
            del fields["probe"]
        return digest_of(fields)[:16]


class FailureKind(StrEnum):
    """How a run ended without a picture; the first two are the engine's fault, the rest is not."""

    RAISED = "raised"
    HUNG = "hung"
    KILLED = "killed"
    OUT_OF_MEMORY = "out of memory"
    LAUNCH = "launch"

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
class Run:
    """What one run left behind (``run.json``); file names are relative to the run's own folder."""

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
    schema: int = SCHEMA


# ---------------------------------------------------------------- what is compared and judged


class Relation(StrEnum):
    """The edges of the run graph; ``docs/words.md`` explains each."""

    REPEAT = "repeat"
    FLOOR = "floor"
    CACHE = "cache"
    EXCHANGE = "exchange"
    CONTROL = "control"
    LAYOUT = "layout"
    PAIR = "pair"
    GOLDEN_BASELINE = "golden-baseline"
    GOLDEN_CANDIDATE = "golden-candidate"


@dataclass(frozen=True)
class Figure:
    """One metric's value; ``None`` where no finite number exists (equal inputs, NaN)."""

    metric: str
    variant: str
    domain: Domain
    value: float | None
    unit: str
    where_px: tuple[int, int, int, int] | None = None
    """Box ``left, top, right, bottom`` the figure speaks of, for metrics that point somewhere."""


@dataclass(frozen=True)
class Comparison:
    """A typed edge between two runs, or a run and a golden."""

    relation: Relation
    reference: str
    candidate: str
    same_run: bool = False
    problem: str | None = None
    """Why no figure can be given: sizes differ, values that are not finite, a missing side."""
    exact_image: bool | None = None
    exact_latents: bool | None = None
    figures: tuple[Figure, ...] = ()
    note: str = ""
    """What there is to say beyond figures, such as how many steps a cache served."""
    steps_db: tuple[float | None, ...] = ()
    """Latents PSNR after each denoise step, of the worst picture; ``None`` where equal."""

    @property
    def exact(self) -> bool:
        """Everything both sides have is equal to the last bit."""
        known = [flag for flag in (self.exact_image, self.exact_latents) if flag is not None]
        return self.same_run or (bool(known) and all(known))

    def figure(self, metric: str, domain: Domain) -> Figure | None:
        """The figure of one metric, if it was measured."""
        return next((f for f in self.figures if (f.metric, f.domain) == (metric, domain)), None)


@dataclass(frozen=True)
class Bound:
    """A limit fixed before judging: the value asked for, where it comes from, what was taken off."""

    metric: str
    domain: Domain
    value: float
    unit: str
    source: Literal["floor", "approved", "declared"]
    margin: float = 0.0
    direction: Literal["at least", "at most"] = "at least"

    def holds(self, value: float) -> bool:
        """Whether a figure keeps the bound."""
        return value >= self.value if self.direction == "at least" else value <= self.value

    def __str__(self) -> str:
        return f"{self.direction} {self.value:g} {self.unit} ({self.source})"


@dataclass(frozen=True)
class Judgement:
    """One comparison held to its bound; ``ok`` is ``None`` where it is only shown."""

    relation: Relation
    ok: bool | None
    sentence: str
    bound: Bound | None = None
    value: float | None = None


@dataclass(frozen=True)
class LedgerLine:
    """Which tokens one rank meets in one attention call, for one picture of the batch: counts of keys.

    A token is told by its key, which is compared with those of the reference. One with the right value
    and another key stands at a wrong position.
    """

    step: int
    module: str
    rank: int
    item: int
    image_tokens: int
    """Image tokens that the reference meets; the rest likewise."""
    image_met: int
    image_missing: int
    image_duplicated: int
    pads: int
    pads_met: int
    caption_tokens: int
    caption_met: int
    caption_missing: int
    caption_duplicated: int
    image_copied: int = 0
    """Met at their place, and once more at another."""
    masked_met: int = 0
    """Met, though the reference masks them."""
    masked_away: int = 0
    """Present and masked, though the reference meets them."""
    wrong_position: int = 0
    foreign: int = 0
    """Like nothing that the reference meets."""
    doubtful: int = 0
    """Near a token of the reference, and not near enough."""
    sentence: str = ""

    @property
    def clean(self) -> bool:
        """Everything is met once, and nothing else."""
        whole = (self.image_met, self.pads_met, self.caption_met) == (
            self.image_tokens,
            self.pads,
            self.caption_tokens,
        )
        again = self.image_duplicated + self.image_copied + self.caption_duplicated
        masks = self.masked_met + self.masked_away
        return whole and not again + masks + self.wrong_position + self.foreign + self.doubtful


@dataclass(frozen=True)
class BlockError:
    """How far one block's output lies from the reference's at one step, over all ranks."""

    step: int
    module: str
    error: float | None
    """Largest relative error of a token: distance over the root mean square of the block's tokens; ``None``
    where a value is not finite."""
    median: float | None
    """Of all tokens."""
    rank: int
    """Where the largest lies."""
    box_px: tuple[int, int, int, int] | None = None
    """Box around the image tokens beyond the tolerance."""
    tokens: int = 0
    """Tokens beyond the tolerance."""


@dataclass(frozen=True)
class Displaced:
    """A rank's shard of the picture that was found elsewhere in it."""

    rank: int
    at_px: int
    """Along the axis of the cut."""
    origin_px: int
    """Where it belongs."""


@dataclass(frozen=True)
class Explanation:
    """What drawing a failing comparison once more showed, from inside (``explained/*.json`` of a run)."""

    relation: Relation
    reference: str
    candidate: str
    ledger: tuple[LedgerLine, ...] = ()
    blocks: tuple[BlockError, ...] = ()
    """In the order in which they are computed."""
    tolerance: float = 0.0
    """What blocks are held to."""
    token_errors: tuple[float | None, ...] = ()
    """Of every image token in the first block beyond the tolerance, row by row; the worst of a batch."""
    redrawn_db: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """Role to latents PSNR between the run and its repetition; ``None`` where equal."""
    out_of_place: int = 0
    """Tokens that a rank has embedded before the first block, and that belong elsewhere in the picture."""
    displaced: tuple[Displaced, ...] = ()
    left_out: tuple[str, ...] = ()
    """What was not recorded or could not be compared, and why."""
    schema: int = SCHEMA

    @property
    def first_divergence(self) -> BlockError | None:
        """The first block whose output leaves the tolerance."""
        return next((b for b in self.blocks if b.error is None or b.error > self.tolerance), None)


class Outcome(StrEnum):
    """How a row ended."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIP = "skip"
    NO_GOLDEN = "no_golden"


@dataclass(frozen=True)
class Verdict:
    """Outcome of a row, its cause in one word where it is known, and the sentence a person reads."""

    outcome: Outcome
    sentence: str
    cause: str | None = None
    infrastructure: bool = False
    judgements: tuple[Judgement, ...] = ()
    evidence: tuple[str, ...] = ()
    """What led to the cause, line by line."""


@dataclass(frozen=True)
class Row:
    """One case under one variant: its plan, the runs that serve it, what they say."""

    case: Case
    variant: Variant
    choice: AxisChoice | None = None
    plan: ShardPlan | None = None
    skip: str | None = None
    runs: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Role (``baseline``, ``replay``, ``control``, ``candidate``, ``reordered``, ``repeat``) to run digest."""
    shares_with: str | None = None
    """Label of the variant whose candidate run this row uses."""
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    explanation: Explanation | None = None
    """What a failing row showed when it was drawn once more with a probe."""

    @property
    def name(self) -> str:
        """``720x720/spatial-u2-auto``, the address of a row on the command line."""
        return f"{self.case.name}/{self.variant.label}"

    def comparison(self, relation: Relation) -> Comparison | None:
        """The comparison of one relation, if it was made."""
        return next((c for c in self.comparisons if c.relation == relation), None)


@dataclass(frozen=True)
class Report:
    """Everything a reporter may show (``report.json``; schema in ``docs/report.md``)."""

    name: str
    matrix: Matrix
    rows: tuple[Row, ...]
    runs: Mapping[str, Run]
    platform: str
    golden: GoldenPolicy
    complete: bool
    exit_code: int
    started_at: str
    wall_s: float
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    golden_dirs: Mapping[str, str] = field(default_factory=dict)
    """Case key to the folder of its golden, for reports that show the picture."""
    schema: int = SCHEMA


# ---------------------------------------------------------------- what plugins must offer


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
    and measured only where the picture is cut. Every other one is made without arguments.
    """

    name: ClassVar[str]
    variant: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    domains: ClassVar[tuple[Domain, ...]]

    def measure(self, reference: Any, candidate: Any, domain: Domain) -> Figure:
        """Compare two arrays that differ somewhere.

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
    """Classes of :mod:`harness.coverage` that a row must meet to show the bug."""

    def plant(self, worker: Worker) -> AbstractContextManager[None]:
        """Switch the bug on in this process for the length of the context."""


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
