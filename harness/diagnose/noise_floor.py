"""The noise floor: how far two correct computations of the same mathematics lie apart.

Measured for every request: the baseline draws again with its image tokens in other orders. Attention does not care for
order and positions travel with their tokens, so nothing changes but the order of sums; whatever differs is rounding,
of this model, dtype, device and request.

A comparison's errors, after each step and of the picture, are held to the noisiest of these draws in standard
deviations of healthy comparisons (:mod:`harness.diagnose.calibration`); the largest deviation decides. Where the
platform has no calibration, and in float32, the last step and the picture are held to the median draw with a margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from harness.diagnose.calibration import Calibration, Group, Key, Request, deviations, group_of
from harness.types import Bound, Comparison, Domain, Judgement, Relation, Row

MARGIN_DB = 10.0
"""Over the median draw where nothing is calibrated: a split reorders other sums than a draw does."""

CALIBRATED_DRAWS = 4
"""Draws that calibrations were made with; fewer, as in runs of earlier versions, are held to the margin."""

SUSPICIOUS = 1 / 3
"""Share of the bound from which on a comparison that passes is looked into."""

LEVELS = 255.0
TILE_PX = 32
ROUNDING_BITS = {"float32": 24, "bfloat16": 8, "float16": 11}
"""Of a significand: an error of half a unit in the last place is what a draw has at least, where it is equal."""

WORDS = {
    "latents": "the latents as a whole differ",
    "worst token": "the worst token of the latents differs",
    "median token": "the median token of the latents differs",
    "picture": "the picture as a whole differs",
    "worst tile": "the worst tile of the picture differs",
}
METRICS: dict[str, tuple[str, Domain]] = {
    "latents": ("psnr", "latents"),
    "picture": ("psnr", "image"),
    "worst tile": ("worst-tile", "image"),
}
"""Statistics that are figures of a comparison."""
DOMAINS: dict[str, Domain] = {name: "image" if name in ("picture", "worst tile") else "latents" for name in WORDS}


def levels(comparison: Comparison, steps: int) -> dict[Key, float]:
    """Return a comparison's errors in dB by statistic and step; minus infinity where equal.

    Parameters
    ----------
    comparison
        With its figures.
    steps
        Of its case: the step after which figures were taken.
    """
    found: dict[Key, float] = {}
    for kind, after in (
        ("latents", comparison.steps_db),
        ("worst token", comparison.steps_worst_db),
        ("median token", comparison.steps_median_db),
    ):
        found |= {(kind, step): _error(value, True) for step, value in enumerate(after, 1)}
    for kind, (metric, domain) in METRICS.items():
        equal = comparison.exact_latents if domain == "latents" else comparison.exact_image
        if equal is None:
            continue
        figure = comparison.figure(metric, domain)
        if equal or figure is not None:
            found[kind, steps] = _error(figure.value if figure else None, equal)
    return found


def _error(db: float | None, equal: bool) -> float:
    """Return the error of a PSNR; one that could not be measured counts as the worst."""
    return -db if db is not None else -math.inf if equal else math.inf


@dataclass(frozen=True)
class Floor:
    """Noise floor of one row."""

    request: Request
    row: Row
    calibration: Calibration | None = None

    @cached_property
    def group(self) -> Group | None:
        """Scatter that errors are held to; ``None`` where the margin is."""
        if self.calibration is None or len(self.request.draws) < CALIBRATED_DRAWS:
            return None
        group = self.calibration.groups.get(self.request.group)
        phase = "only" if self.request.steps == 1 else "last"
        return group if group and {f"latents {phase}", f"picture {phase}"} <= set(group.spreads_db) else None

    def bounds(self) -> list[Bound]:
        """List the bounds that a comparison is held to, one of latents and at least one of pictures."""
        if self.calibration is not None and self.group is not None:
            basis = (
                f"{self.calibration.values:,} healthy comparisons of {self.calibration.model} on "
                f"{self.calibration.device} in {self.calibration.dtype}, extrapolated to one in 100,000"
            )
            value, unit = self.calibration.bound, "standard deviations"
            return [
                Bound("deviation", domain, value, unit, "floor", 0.0, "at most", basis)
                for domain in ("latents", "image")
            ]
        return [self._margin(kind) for kind in METRICS]

    def latents_db(self) -> Bound:
        """Return the bound of the final latents' PSNR."""
        if self.calibration is None or self.group is None:
            return self._margin("latents")
        last = ("latents", self.request.steps)
        distance, deviation = deviations(self.request, {last: 0.0}, self.group)[last]
        margin = self.calibration.bound * distance / deviation
        return Bound("psnr", "latents", round(distance - margin, 2), "dB", "floor", round(margin, 2))

    def judge(self, comparison: Comparison) -> list[Judgement]:
        """Hold a comparison to the floor; an equal one passes."""
        errors = levels(comparison, self.request.steps)
        found = []
        for bound in self.bounds():
            equal = comparison.exact_latents if bound.domain == "latents" else comparison.exact_image
            if equal or comparison.same_run:
                found.append(Judgement(comparison.relation, True, "equal to the last bit", bound))
            elif equal is not None and (bound.metric != "worst-tile" or comparison.figure("worst-tile", "image")):
                found.append(self._judge(comparison, bound, errors))
        return found

    def _judge(self, comparison: Comparison, bound: Bound, errors: dict[Key, float]) -> Judgement:
        relation = comparison.relation
        if bound.metric != "deviation" or self.group is None:
            figure = comparison.figure(bound.metric, bound.domain)
            if figure is None or figure.value is None:
                text = f"{bound.metric} of {bound.domain} could not be measured"
                return Judgement(relation, False, text, bound)
            text = f"{figure.value:.4g} {figure.unit} of {bound.domain}, asked for {bound}"
            return Judgement(relation, bound.holds(figure.value), text, bound, figure.value)
        own = {key: level for key, level in errors.items() if DOMAINS[key[0]] == bound.domain}
        found = deviations(self.request, own, self.group)
        key = max(found, key=lambda key: found[key][1])
        distance, value = found[key]
        side = "more" if distance > 0 else "less"
        when = f"after step {key[1]} " if DOMAINS[key[0]] == "latents" else ""
        text = (
            f"{when}{WORDS[key[0]]} by {abs(distance):.1f} dB {side} than in the noisiest of "
            f"{len(self.request.draws)} reorderings, {value:.1f} standard deviations, asked for {bound}"
        )
        value = round(value, 2) if math.isfinite(value) else value
        return Judgement(relation, bound.holds(value), text, bound, value if math.isfinite(value) else None)

    def _margin(self, kind: str) -> Bound:
        draws = [draw.get((kind, self.request.steps), -math.inf) for draw in self.request.draws]
        level = median(draws)
        if math.isinf(level):
            level = self._smallest(kind)
        metric, domain = METRICS[kind]
        basis = f"{MARGIN_DB:g} dB over the median of {len(draws)} draws"
        return Bound(metric, domain, round(-level - MARGIN_DB, 2), "dB", "floor", MARGIN_DB, basis=basis)

    def _smallest(self, kind: str) -> float:
        """Return the error of a draw that is equal: of one rounding, or of one 8-bit step of one value if larger."""
        rounding = -20 * math.log10(2 ** ROUNDING_BITS[self.row.case.dtype])
        if DOMAINS[kind] == "latents":
            return rounding
        size = self.row.case.size
        tile = min(TILE_PX, size.width_px) * min(TILE_PX, size.height_px)
        values = 3 * (tile if kind == "worst tile" else size.width_px * size.height_px)
        return max(rounding, -10 * math.log10(values * LEVELS**2))


def of(row: Row, calibration: Calibration | None = None) -> Floor | None:
    """Return the floor of a row whose comparisons are made; ``None`` where no draw can be compared."""
    draws = [comparison for comparison in row.comparisons if comparison.relation == Relation.FLOOR]
    if not draws or any(draw.problem for draw in draws):
        return None
    return Floor(request_of(row, draws), row, None if row.case.dtype == "float32" else calibration)


def request_of(row: Row, draws: Sequence[Comparison], healthy: Sequence[Comparison] = ()) -> Request:
    """Collect the errors of a row's draws, and of comparisons that are known to be right."""
    case = row.case
    return Request(
        group_of(case.guidance_scale > 0, case.size.tokens),
        case.steps,
        tuple(levels(draw, case.steps) for draw in draws),
        tuple(levels(comparison, case.steps) for comparison in healthy),
    )


def suspicious(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements that pass, and lie so near their bound that it is worth looking inside."""
    return [
        judgement
        for judgement in judgements
        if judgement.ok
        and judgement.bound is not None
        and judgement.bound.metric == "deviation"
        and (judgement.value or 0.0) > SUSPICIOUS * judgement.bound.value
    ]
