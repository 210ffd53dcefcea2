"""Calibrations of the noise floor: how far healthy comparisons of one platform scatter around reorderings.

``sp-harness benign`` fits one from rows that are right by construction and writes it as JSON. Those of built-in models
are part of the package; others lie in the cache folder. A platform is the digest of the weights, the kind of device,
and the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median

from harness import codec
from harness.types import SCHEMA

FALSE_ALARMS = 1e-5
"""Rate of healthy comparisons beyond the bound, extrapolated."""
UPPER = 0.1
"""Share of the largest values that the exponential tail is fitted to."""
LEAST_VALUES = 200
"""Healthy comparisons that a calibration needs at least."""
LEAST_IN_GROUP = 20
"""Healthy comparisons that a spread needs at least."""
LEAST_AT_STEP = 5
"""Healthy comparisons that the usual error after one step of so many needs at least."""
LARGE_TOKENS = 1024
"""Image tokens from which on rounding averages out: at 2,025 tokens all draws lie within 0.1 dB."""
LEAST_SPREAD_DB = {"large": 0.15, "small": 0.25}
"""By size class: with few tokens rounding that flips in some of them moves every figure by more."""
QUANTILE, NORMAL = 0.95, 1.645
"""A standard deviation is the distance to this quantile over that of the normal distribution: what lies below the
draws says nothing of how far healthy rows reach above them."""

SHIPPED = Path(__file__).parent / "calibrations"

Key = tuple[str, int]
"""A statistic: its kind, and the step from 1 after which it was taken."""
Levels = Mapping[Key, float]
"""Error in dB by statistic, larger for larger errors; minus infinity where equal."""


@dataclass(frozen=True)
class Group:
    """Scatter of the requests of one group: guidance, and size class."""

    level_db: float
    """Median error of the latents after the last step, of the draws."""
    offsets_db: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Statistic and step, ``median token 1/4``, to its median distance from that error in healthy comparisons."""
    spreads_db: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Statistic and phase, ``median token first``, to a standard deviation around the noisiest draw."""


@dataclass(frozen=True)
class Calibration:
    """Scatter of healthy comparisons on one platform."""

    model: str
    weights: str
    device: str
    dtype: str
    groups: Mapping[str, Group] = field(default_factory=dict, hash=False)
    values: int = 0
    """Healthy comparisons behind the tail."""
    tail_from: float = 0.0
    """Deviation that a tenth of them exceed, in standard deviations."""
    tail_mean: float = 0.0
    """Mean excess over it."""
    largest: float = 0.0
    environment: str = ""
    """Device and versions that drew them."""
    schema: int = SCHEMA

    @property
    def bound(self) -> float:
        """Deviation that healthy comparisons exceed at the rate :data:`FALSE_ALARMS`, extrapolated."""
        return round(self.tail_from + self.tail_mean * math.log(UPPER / FALSE_ALARMS), 2)

    @property
    def suffices(self) -> bool:
        """Whether enough was drawn for a bound."""
        return self.values >= LEAST_VALUES


@dataclass(frozen=True)
class Request:
    """Errors of one request: of its draws, and of healthy comparisons."""

    group: str
    steps: int
    draws: tuple[Levels, ...]
    healthy: tuple[Levels, ...] = ()


def group_of(guided: bool, tokens: int) -> str:
    """Name the group of a request. A cache makes no difference: the draws are served the same steps."""
    return f"{'guided' if guided else 'plain'} {'large' if tokens >= LARGE_TOKENS else 'small'}"


def deviations(request: Request, candidate: Levels, group: Group) -> dict[Key, tuple[float, float]]:
    """Hold a comparison's errors to the noisiest draw.

    Draws that are equal by luck, or all but equal, are raised to what is usual in the group.

    Returns
    -------
    dict
        For each statistic that is calibrated the distance in dB, and in standard deviations.
    """
    found = {}
    for key, distance in _distances(request, candidate, group).items():
        spread = group.spreads_db.get(f"{key[0]} {_phase(key[1], request.steps)}")
        if spread is not None:
            found[key] = distance, distance / spread
    return found


def _distances(request: Request, candidate: Levels, group: Group) -> dict[Key, float]:
    usual = max(median(draw[_last(request)] for draw in request.draws), group.level_db)
    found = {}
    for key, level in candidate.items():
        offset = group.offsets_db.get(_step_name(key, request.steps))
        if offset is not None:
            found[key] = level - max(usual + offset, *(draw.get(key, -math.inf) for draw in request.draws))
    return found


def _last(request: Request) -> Key:
    return "latents", request.steps


def _phase(step: int, steps: int) -> str:
    """Name the phase of a step; a single step is both ends, and scatters as a first one does."""
    if steps == 1:
        return "only"
    return "last" if step == steps else "first" if step == 1 else "later"


def _step_name(key: Key, steps: int) -> str:
    """Name a statistic and its step; after the last of several their number makes no difference."""
    return f"{key[0]} {'last' if key[1] == steps > 1 else f'{key[1]}/{steps}'}"


def fit(requests: Sequence[Request], platform: Calibration) -> Calibration:
    """Measure how healthy comparisons scatter.

    Parameters
    ----------
    requests
        With several draws and healthy comparisons each; those that are equal count for nothing.
    platform
        What was drawn, and by what.
    """
    groups = {}
    for name in dict.fromkeys(request.group for request in requests):
        members = [request for request in requests if request.group == name and request.healthy]
        if (group := _fit_group(members, LEAST_SPREAD_DB[name.split()[-1]])) is not None:
            groups[name] = group
    largest = sorted(
        value
        for request in requests
        if request.group in groups
        for candidate in request.healthy
        if (value := _largest(request, candidate, groups[request.group])) is not None
    )
    if not largest:
        return platform
    start = _quantile(largest, 1 - UPPER)
    beyond = [value - start for value in largest if value > start] or [0.0]
    return replace(
        platform,
        groups=groups,
        values=len(largest),
        tail_from=round(start, 3),
        tail_mean=round(sum(beyond) / len(beyond), 3),
        largest=round(largest[-1], 3),
    )


def _largest(request: Request, candidate: Levels, group: Group) -> float | None:
    return max((value for _, value in deviations(request, candidate, group).values()), default=None)


def _fit_group(requests: Sequence[Request], least_db: float) -> Group | None:
    if sum(len(request.healthy) for request in requests) < LEAST_IN_GROUP:
        return None
    levels = [median(draw[_last(request)] for draw in request.draws) for request in requests]
    level = median(levels)
    if math.isinf(level):
        return None
    offsets: dict[str, list[float]] = {}
    for request, own in zip(requests, levels, strict=True):
        for candidate in request.healthy:
            for key, error in candidate.items():
                offsets.setdefault(_step_name(key, request.steps), []).append(error - max(own, level))
    middle = {name: median(found) for name, found in offsets.items() if len(found) >= LEAST_AT_STEP}
    usual = Group(level, {name: round(offset, 2) for name, offset in middle.items() if math.isfinite(offset)})
    spreads: dict[str, list[float]] = {}
    for request in requests:
        for candidate in request.healthy:
            for key, distance in _distances(request, candidate, usual).items():
                spreads.setdefault(f"{key[0]} {_phase(key[1], request.steps)}", []).append(distance)
    measured = {name: _spread(found, least_db) for name, found in spreads.items() if len(found) >= LEAST_IN_GROUP}
    return Group(round(level, 2), usual.offsets_db, measured)


def _spread(distances: Sequence[float], least_db: float) -> float:
    return round(max(least_db, _quantile(sorted(distances), QUANTILE) / NORMAL), 3)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values, without interpolation, rather the larger."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)))]


def file_name(model: str, device: str, dtype: str) -> str:
    """Name the file of a platform."""
    return f"{model}-{device}-{dtype}.json"


@cache
def stored(weights: str, device: str, dtype: str, folders: tuple[Path, ...] = (SHIPPED,)) -> Calibration | None:
    """Find the calibration of a platform; ``None`` where there is none that suffices."""
    for found in _all(folders):
        if (found.weights, found.device, found.dtype) == (weights, device, dtype) and found.suffices:
            return found
    return None


def _all(folders: Iterable[Path]) -> Iterable[Calibration]:
    for folder in folders:
        for file in sorted(folder.glob("*.json")):
            yield codec.read_json(file, Calibration, SCHEMA)
