"""The cause of a failing verdict, one word of a short list.

What can be told from the comparisons alone is told here:

========================  =====================================================================
``crash``                 a rank raised or crashed
``hang``                  no answer within the time limit
``environment``           out of memory, killed from outside, did not start
``cache``                 the cache decided otherwise than on one device, or never served a step
``engine``                already wrong on one device (control)
``cut/gather``            the candidate's picture has another size
``split``                 right on one device, wrong when split (exchange)
``layout``                pads cost more than approved
``golden drift``          the baseline itself no longer draws the approved picture
========================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.types import Failure, FailureKind, Judgement, Relation, Row


def of_failure(failure: Failure) -> str:
    """Name the cause of a run that has no picture."""
    if failure.kind.infrastructure:
        return "environment"
    return "hang" if failure.kind == FailureKind.HUNG else "crash"


ORDER = (
    Relation.REPEAT,
    Relation.CACHE,
    Relation.CONTROL,
    Relation.EXCHANGE,
    Relation.GOLDEN_BASELINE,
    Relation.LAYOUT,
    Relation.PAIR,
    Relation.GOLDEN_CANDIDATE,
)
"""The way of the data: of several relations that fail, the first explains the others.

Exchange stands before the goldens: it compares two runs of today, whatever was approved.
"""


def first_failing(judgements: Sequence[Judgement]) -> Relation | None:
    """Find the failing relation that explains the others."""
    failing = {judgement.relation for judgement in judgements if judgement.ok is False}
    return next((relation for relation in ORDER if relation in failing), None)


def of_judgements(row: Row, judgements: Sequence[Judgement]) -> str | None:
    """Name the cause of failing judgements."""
    relation = first_failing(judgements)
    if relation == Relation.EXCHANGE:
        exchange = row.comparison(Relation.EXCHANGE)
        resized = exchange is not None and exchange.problem is not None and "sizes differ" in exchange.problem
        return "cut/gather" if resized else "split"
    causes = {
        Relation.REPEAT: "non-determinism",
        Relation.CACHE: "cache",
        Relation.CONTROL: "engine",
        Relation.GOLDEN_BASELINE: "golden drift",
        Relation.LAYOUT: "layout",
        Relation.PAIR: "split",
        Relation.GOLDEN_CANDIDATE: "golden drift",
    }
    return causes[relation] if relation else None
