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


def of_judgements(row: Row, judgements: Sequence[Judgement]) -> str | None:
    """Name the cause of failing judgements, the earliest in the way of the data first."""
    failing = {judgement.relation for judgement in judgements if judgement.ok is False}
    if not failing:
        return None
    if Relation.GOLDEN_BASELINE in failing:
        return "golden drift"
    if Relation.CACHE in failing:
        return "cache"
    if Relation.CONTROL in failing:
        return "engine"
    if Relation.EXCHANGE in failing:
        exchange = row.comparison(Relation.EXCHANGE)
        resized = exchange is not None and exchange.problem is not None and "sizes differ" in exchange.problem
        return "cut/gather" if resized else "split"
    if Relation.LAYOUT in failing:
        return "layout"
    return "split" if Relation.PAIR in failing else "golden drift"
