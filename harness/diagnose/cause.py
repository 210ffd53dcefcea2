"""The cause of a failing verdict, one word of a short list, and the evidence for it.

========================  =====================================================================
``crash``                 a rank raised or crashed
``hang``                  no answer within the time limit
``non-determinism``       drawn once more, the picture is another one
``noise``                 the transformer is given other latents: their noise, or how a step updates them
``cut/gather``            shards are cut or put together wrongly; also a picture of another size
``exchange``              ranks miss image tokens, or what attention found is lost on its way back
``position``              a token has the right value and stands at a wrong position
``not engaged``           the ranks exchanged nothing: one device drew, whatever was asked for
``weights``               ranks compute with different weights, or with other pad tokens than were learned
``modulation``            blocks scale and gate by other channels
``guidance``              predictions with and without the prompt are combined wrongly, or where they should not be
``schedule``              other time steps or sigmas
``pads``                  another number of pads than the layout has, or something else in their place
``caption``               caption tokens are missing, met twice, or wrong
``mask``                  masked keys are met, or met keys are masked
``cache``                 the cache decided otherwise than on one device, served something else, or never served
``decode``                latents are right, the picture is not
``golden drift``          the baseline itself no longer draws the approved picture
``golden unusable``       the golden is altered, or was approved for other weights: nothing is held to it
``environment``           out of memory, a full disk, killed from outside, did not start, drawn on different machines
``engine``                already wrong on one device (control), and nothing inside says why
``split``                 wrong when split (exchange), and nothing inside says why: not explained yet, or an
                          engine that cannot be probed
``layout``                pads cost more than approved, though their number is right
========================  =====================================================================

The last three name the comparison that failed. They stand where no probe has looked inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.diagnose import inside
from harness.diagnose.inside import Finding
from harness.types import Failure, FailureKind, Judgement, Relation, Row, Run


def evidence_of_failure(failure: Failure) -> tuple[str, ...]:
    """Describe a run without a picture: how it ended, and the last source line of its traceback or stack."""
    places = [line.strip() for line in failure.detail.splitlines() if line.strip().startswith("File ")]
    recent_first = "most recent call first" in failure.detail
    return (failure.message, *places[:1]) if recent_first else (failure.message, *places[-1:])


def of_failure(failure: Failure) -> str:
    """Name the cause of a run that has no picture."""
    if failure.kind.infrastructure:
        return "environment"
    return "hang" if failure.kind == FailureKind.HUNG else "crash"


ORDER = (
    Relation.REPEAT,
    Relation.CACHE,
    Relation.CONTROL,
    Relation.PADDED_CONTROL,
    Relation.EXCHANGE,
    Relation.OWN_EXCHANGE,
    Relation.GOLDEN_BASELINE,
    Relation.LAYOUT,
    Relation.PAIR,
    Relation.GOLDEN_CANDIDATE,
)
"""The way of the data: of several relations that fail, the first explains the others.

Exchange stands before the goldens: it compares two runs of today, whatever was approved.
"""


EXCHANGES = (Relation.EXCHANGE, Relation.OWN_EXCHANGE)
"""Comparisons of the split with one device: the replay, or the engine itself."""


def first_failing(judgements: Sequence[Judgement]) -> Relation | None:
    """Find the failing relation that explains the others."""
    failing = {judgement.relation for judgement in judgements if judgement.ok is False}
    return next((relation for relation in ORDER if relation in failing), None)


def find(row: Row, judgements: Sequence[Judgement], runs: Mapping[str, Run] | None = None) -> Finding:
    """Name the cause of failing judgements, with the evidence that the row's explanation holds, if it has one.

    Parameters
    ----------
    row
        With its comparisons, and perhaps an explanation.
    judgements
        Of its comparisons.
    runs
        By digest; they tell which steps a cache served.
    """
    relation = first_failing(judgements)
    word = of_judgements(row, judgements)
    said = [f"{relation}: {j.sentence}" for j in judgements if j.relation == relation and j.ok is False]
    explanation = row.explanation
    if relation is None or explanation is None or explanation.relation != relation:
        return Finding(word, tuple(said))
    comparison = row.comparison(relation)
    figure = comparison.figure("psnr", "latents") if comparison else None
    candidate = (runs or {}).get(explanation.candidate)
    found = inside.of_explanation(
        explanation,
        error_db=figure.value if figure else None,
        cached=candidate.cache_decisions[0] if candidate and candidate.cache_decisions else (),
        split=candidate.spec.world_size > 1 if candidate else row.variant.degree > 1,
        guided=row.case.guidance_scale > 0,
    )
    settled = word in ("cut/gather", "decode", "noise")  # these the comparison tells for certain
    seen = found.seen if found.cause else ""
    return Finding(word if settled else found.cause or word, (*said, *found.evidence), seen)


def of_judgements(row: Row, judgements: Sequence[Judgement]) -> str | None:
    """Name the cause as far as the comparisons tell it."""
    relation = first_failing(judgements)
    if relation in (*EXCHANGES, Relation.CONTROL) and _decoded_wrongly(relation, judgements):
        return "decode"
    comparison = row.comparison(relation) if relation else None
    if relation in (Relation.EXCHANGE, Relation.CONTROL) and comparison is not None and comparison.narrowed:
        return "noise"
    if relation in EXCHANGES:
        exchange = row.comparison(relation)
        resized = exchange is not None and exchange.problem is not None and "sizes differ" in exchange.problem
        return "cut/gather" if resized else "split"
    if relation == Relation.GOLDEN_BASELINE and row.comparison(Relation.GOLDEN_CANDIDATE) is None:
        of_golden = row.comparison(relation)
        if of_golden is not None and of_golden.problem is not None:
            return "golden unusable"
    causes = {
        Relation.REPEAT: "non-determinism",
        Relation.CACHE: "cache",
        Relation.CONTROL: "engine",
        Relation.PADDED_CONTROL: "pads",
        Relation.GOLDEN_BASELINE: "golden drift",
        Relation.LAYOUT: "layout",
        Relation.PAIR: "split",
        Relation.GOLDEN_CANDIDATE: "golden drift",
    }
    return causes[relation] if relation else None


def _decoded_wrongly(relation: Relation, judgements: Sequence[Judgement]) -> bool:
    """Whether the latents hold and the picture alone does not."""
    held = [(j.bound.domain, j.ok) for j in judgements if j.relation == relation and j.bound is not None]
    return ("latents", True) in held and ("latents", False) not in held and ("image", False) in held
