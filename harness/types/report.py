"""Verdicts, rows, and the report that every format is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.types.comparison import Comparison, Judgement, Relation
from harness.types.explanation import Explanation
from harness.types.plan import AxisChoice, Pads, ShardPlan
from harness.types.request import Case, Matrix, Variant
from harness.types.run import Run
from harness.types.values import SCHEMA, GoldenPolicy, check_plain_name


class Outcome(StrEnum):
    """Outcome of a row."""

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
    suspicious: bool = False
    """Passes, and lies so near a bound that it is drawn once more with a probe."""


@dataclass(frozen=True)
class OwnArithmetic:
    """Declaration of an engine that shares no arithmetic with its baseline, for the dtype of a row."""

    control_db: float | None = None
    """Latents PSNR in dB that its control keeps; ``None`` where it has to reach the noise floor."""


@dataclass(frozen=True)
class Row:
    """One case under one variant: its plan, the runs that serve it, what they say."""

    case: Case
    variant: Variant
    choice: AxisChoice | None = None
    plan: ShardPlan | None = None
    pads: Pads | None = None
    """As the engine declares them, where it cuts no picture; ``None`` where nothing is known beyond the plan."""
    own: OwnArithmetic | None = None
    skip: str | None = None
    runs: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Role to digest: ``baseline``, ``replay``, ``control``, ``padded``, ``candidate``, ``repeat``, and the draws
    ``reordered`` and ``reordered-2`` to ``reordered-4``."""
    shares_with: str | None = None
    """Label of the variant whose candidate run this row uses."""
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    explanation: Explanation | None = None
    """What a failing row showed when it was drawn once more with a probe."""

    def __post_init__(self) -> None:
        for digest in self.runs.values():
            check_plain_name(digest, "run")

    @property
    def name(self) -> str:
        """``720x720/spatial-u2-auto``, the address of a row on the command line."""
        return f"{self.case.name}/{self.variant.label}"

    @property
    def surplus_pads(self) -> int | None:
        """Image pads beyond those of one device; ``None`` where nothing is known of them."""
        if self.plan is not None:
            return self.plan.surplus_pad_tokens
        return self.pads.surplus if self.pads else None

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

    def __post_init__(self) -> None:
        for digest in self.runs:
            check_plain_name(digest, "run")
