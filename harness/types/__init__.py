"""The words of the harness as types, in the order in which data flows through it.

Matrix -> Case x Variant -> AxisChoice / ShardPlan -> RunSpec -> Run -> Comparison -> Verdict
-> Report. Everything here is frozen, holds plain values only and can be written to JSON and
read again by :mod:`harness.codec`. Standard library only: these modules are also loaded inside
the interpreters of other engines.

    values         versions, units, words of a closed list, digests
    request        Matrix, Case, Variant, Size, ModelSpec
    plan           ShardPlan, AxisChoice
    run            RunSpec, Run, Times, Failure
    comparison     Relation, Comparison, Figure, Bound, Judgement
    explanation    LedgerLine, BlockError, Displaced, Explanation
    report         Outcome, Verdict, Row, Report

All names are imported from here; the modules know one another by theirs.
"""

from __future__ import annotations

from harness.types.comparison import Bound, Comparison, Figure, Judgement, Relation
from harness.types.explanation import BlockError, Displaced, Explanation, LedgerLine
from harness.types.plan import AxisChoice, Pads, ShardPlan
from harness.types.report import Outcome, OwnArithmetic, Report, Row, Verdict
from harness.types.request import Case, Matrix, ModelSpec, Size, Variant
from harness.types.run import Failure, FailureKind, Recorded, Run, RunSpec, Times
from harness.types.values import (
    MOST_RANKS,
    PIXELS_PER_TOKEN,
    PROBE_FILE,
    SCHEMA,
    Axis,
    Cache,
    Device,
    Domain,
    DType,
    GoldenPolicy,
    Layout,
    TokenOrder,
    check_plain_name,
    digest_of,
    is_plain_name,
)

__all__ = [
    "MOST_RANKS",
    "PIXELS_PER_TOKEN",
    "PROBE_FILE",
    "SCHEMA",
    "Axis",
    "AxisChoice",
    "BlockError",
    "Bound",
    "Cache",
    "Case",
    "Comparison",
    "DType",
    "Device",
    "Displaced",
    "Domain",
    "Explanation",
    "Failure",
    "FailureKind",
    "Figure",
    "GoldenPolicy",
    "Judgement",
    "Layout",
    "LedgerLine",
    "Matrix",
    "ModelSpec",
    "Outcome",
    "OwnArithmetic",
    "Pads",
    "Recorded",
    "Relation",
    "Report",
    "Row",
    "Run",
    "RunSpec",
    "ShardPlan",
    "Size",
    "Times",
    "TokenOrder",
    "Variant",
    "Verdict",
    "check_plain_name",
    "digest_of",
    "is_plain_name",
]
