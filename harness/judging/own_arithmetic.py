"""Bounds for an engine that shares no arithmetic with its baseline (``Engine.own_arithmetic``).

Its control is held to the noise floor where it reaches it, else to the bound that the engine declares for the dtype.
A control at the floor leaves nothing to allow for: the split is judged against the replay like any other. Otherwise
it is judged against the engine's own single device, drawn with as many pads, at the noise floor; and that padded
control against the replay as the control is, so that pads wrong alike in both cannot hide. An engine with surplus
pads that cannot be told to draw them on one device is held to what its control shows, and such a row verifies
nothing by itself (:func:`with_unverified`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.diagnose.noise_floor import Floor
from harness.types import Bound, Comparison, Domain, Judgement, Outcome, Relation, Row

MARGIN_DB = 1.0
"""Subtracted from the control's figures. At full size in bfloat16 control and exchange agree within 0.1 dB."""

CONTROLS = (Relation.CONTROL, Relation.PADDED_CONTROL)


def reference_role(row: Row) -> str | None:
    """Name the run on one device that the split computes the same as; ``None`` where the engine cannot draw it."""
    if "padded" in row.runs:
        return "padded"
    return None if row.surplus_pads else "control"


def bounds(row: Row, comparison: Comparison, floor: Floor | None) -> list[Bound] | None:
    """List the bounds of a comparison of exchange or control; none where it is only shown.

    ``None`` where it is held to the noise floor.
    """
    if comparison.relation in CONTROLS:
        return None if keeps(comparison, floor) else _declared(row, comparison) or None
    control = row.comparison(Relation.CONTROL)
    at_floor = control is not None and keeps(control, floor)
    if comparison.relation == Relation.OWN_EXCHANGE:
        return [] if at_floor else None
    if at_floor:
        return None
    return [] if reference_role(row) else _of_control(control)


def keeps(comparison: Comparison, floor: Floor | None) -> bool:
    """Whether a comparison is within the noise floor in all that both sides have."""
    if comparison.exact:
        return True
    if comparison.problem is not None or floor is None:
        return False
    return all(judgement.ok for judgement in floor.judge(comparison))


def holds(comparison: Comparison, bound: Bound) -> bool | None:
    """Whether a comparison keeps a bound; ``None`` where one side lacks the output that it is about."""
    exact = comparison.exact_latents if bound.domain == "latents" else comparison.exact_image
    if exact or comparison.same_run:
        return True
    figure = comparison.figure(bound.metric, bound.domain)
    if exact is None:
        return None
    return figure is not None and figure.value is not None and bound.holds(figure.value)


def _declared(row: Row, comparison: Comparison) -> list[Bound]:
    """The engine's own bound; of pictures where it gives no latents."""
    if row.own is None or row.own.control_db is None or row.case.dtype == "float32":
        return []
    domain: Domain = "image" if comparison.exact_latents is None else "latents"
    return [Bound("psnr", domain, row.own.control_db, "dB", "declared")]


def _of_control(control: Comparison | None) -> list[Bound]:
    found = []
    looked_at: tuple[tuple[str, Domain], ...] = (("psnr", "latents"), ("psnr", "image"), ("worst-tile", "image"))
    for metric, domain in looked_at:
        figure = control.figure(metric, domain) if control else None
        if figure is not None and figure.value is not None:
            value = round(figure.value - MARGIN_DB, 2)
            found.append(Bound(metric, domain, value, figure.unit, "control", MARGIN_DB))
    return found


def beyond_control(row: Row, judgements: Sequence[Judgement]) -> list[Judgement]:
    """Judge the steps of an exchange that is held to the control: the first that lies further off fails."""
    if not _held_to_control(judgements):
        return []
    exchange, control = row.comparison(Relation.EXCHANGE), row.comparison(Relation.CONTROL)
    steps = zip(exchange.steps_db if exchange else (), control.steps_db if control else (), strict=False)
    for step, (split, whole) in enumerate(steps, 1):
        if split is not None and (whole is None or split < whole - MARGIN_DB):
            own = "is equal" if whole is None else f"is {whole:.1f} dB"
            text = f"after step {step} the split is {split:.1f} dB from the replay, where the control {own}"
            return [Judgement(Relation.EXCHANGE, False, text)]
    return []


def with_unverified(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Say of passing rows that are held to their control whether a float32 row of the same case stands beside them."""
    verified = {_in_float32(row) for row in rows if row.case.dtype == "float32" and _passes(row)}
    return tuple(
        row if row.verdict is None or _in_float32(row) in verified or not _passes(row) else _unverified(row)
        for row in rows
    )


def _unverified(row: Row) -> Row:
    assert row.verdict is not None
    if not _held_to_control(row.verdict.judgements):
        return row
    said = " This verifies nothing by itself: no float32 row of the same case passes in this run."
    return replace(row, verdict=replace(row.verdict, sentence=row.verdict.sentence + said))


def _held_to_control(judgements: Sequence[Judgement]) -> bool:
    return any(judgement.bound and judgement.bound.source == "control" for judgement in judgements)


def _in_float32(row: Row) -> str:
    return f"{replace(row.case, dtype='float32').identity()} {row.variant.label}"


def _passes(row: Row) -> bool:
    return row.verdict is not None and row.verdict.outcome == Outcome.PASS
