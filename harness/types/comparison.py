"""Comparisons: edges of the run graph, their figures, and the bounds of figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from harness.types.values import Domain


class Relation(StrEnum):
    """The edges of the run graph; ``docs/words.md`` explains each."""

    REPEAT = "repeat"
    FLOOR = "floor"
    CACHE = "cache"
    EXCHANGE = "exchange"
    CONTROL = "control"
    PADDED_CONTROL = "padded-control"
    OWN_EXCHANGE = "own-exchange"
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
    steps_worst_db: tuple[float | None, ...] = ()
    """The same of the image token that differs most."""
    steps_median_db: tuple[float | None, ...] = ()
    """The same of the median image token: rounding that flips in a few tokens does not move it."""
    narrowed: bool = False
    """The candidate's latents hold no more than bfloat16 can, the reference's do."""

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
    source: Literal["floor", "approved", "declared", "control"]
    margin: float = 0.0
    direction: Literal["at least", "at most"] = "at least"
    basis: str = ""
    """What a bound of source ``floor`` was computed from."""

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
