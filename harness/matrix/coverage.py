"""Coverage: classes of shapes and features that a matrix meets.

A class is a way in which a split can be right at one row and wrong at another. Only rows that are split over ranks
and not skipped meet any. :mod:`harness.matrix.suggest` finds additions that meet the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import models, plugins
from harness.models.captions import CountTokens, counter
from harness.planning.cut import PAD_MULTIPLE, pads_of, split_evenly
from harness.planning.graph import Graph
from harness.types import Case, Matrix, ModelSpec, Row, ShardPlan, Variant

RANKS = (2, 3, 6)
"""Degrees that the classes name; all of them divide the heads of Z-Image."""


@dataclass(frozen=True)
class Request:
    """A case, and the tokens of its captions."""

    case: Case
    captions: tuple[int, ...]

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded length of each caption, in multiples of 32."""
        return tuple(-(-tokens // PAD_MULTIPLE) for tokens in self.captions)


@dataclass(frozen=True)
class Sight:
    """Properties of a row that decide its classes."""

    row: Row
    captions: tuple[int, ...]
    """Tokens of every caption that is drawn at once, negative prompts included."""
    earlier: tuple[Request, ...] = ()
    """Requests that its engine has served before in the same sequence."""

    @property
    def request(self) -> Request:
        """The request of this row."""
        return Request(self.row.case, self.captions)

    @property
    def aligned(self) -> ShardPlan | None:
        """Plan of a row whose layout pads every rank; ``None`` for layout ``exact``."""
        return self.row.plan if self.row.variant.layout == "aligned" else None

    @property
    def rule(self) -> str:
        """Rule by which ``auto`` chose the axis, and the axis: ``lower cost, h``."""
        choice = self.row.choice
        if choice is None or self.row.variant.axis != "auto" or self.aligned is None:
            return ""
        rules = {"lower cost": "lower cost", "tie in cost, more": "more tokens", "tie in cost and": "tie"}
        name = next((rule for start, rule in rules.items() if choice.rule.startswith(start)), "")
        return f"{name}, {choice.chosen_axis}"

    @property
    def degree(self) -> int:
        """Ranks that share the row's pictures."""
        return self.row.variant.degree

    @property
    def flat(self) -> tuple[int, ...]:
        """Padded lengths that are cut into parts of tokens: image, image and caption; none where pictures are cut."""
        if self.row.variant.axis != "none":
            return ()
        tokens = self.row.case.size.tokens
        image = tokens + (self.row.pads.total if self.row.pads else pads_of(tokens))
        return image, image + max(self.buckets) * PAD_MULTIPLE

    @property
    def borders(self) -> tuple[int, ...]:
        """First token of each part of image and caption but the first."""
        parts = split_evenly(self.flat[-1], self.degree) if self.flat else ()
        return tuple(sum(parts[:rank]) for rank in range(1, len(parts)))

    @property
    def buckets(self) -> set[int]:
        """Padded lengths of the captions."""
        return set(self.request.buckets)


def _sides(sight: Sight) -> int:
    return sight.row.case.size.width_px - sight.row.case.size.height_px


def _uneven(sight: Sight) -> bool | None:
    return len(set(sight.row.plan.shard_tokens)) > 1 if sight.row.plan else None


def _pads(sight: Sight) -> tuple[int, int] | None:
    return (sight.aligned.pad_tokens, sight.aligned.surplus_pad_tokens) if sight.aligned else None


def _of_degree(ranks: int) -> Callable[[Sight], bool]:
    return lambda sight: sight.row.variant.degree == ranks


def _after(meets: Callable[[Request, Request], bool]) -> Callable[[Sight], bool]:
    """Whether a row's request stands so to one that was served before it: ``meets(earlier, own)``."""
    return lambda sight: any(meets(earlier, sight.request) for earlier in sight.earlier)


def _same(earlier: Request, own: Request) -> bool:
    return earlier.case.identity() == own.case.identity()


def _equal_shape(earlier: Request, own: Request) -> bool:
    shapes = [(request.case.size, request.case.num_images) for request in (earlier, own)]
    return shapes[0] == shapes[1] and not _same(earlier, own)


def _other_negative(earlier: Request, own: Request) -> bool:
    guided = earlier.case.guidance_scale > 0 and own.case.guidance_scale > 0
    differ = earlier.case.negative_prompts != own.case.negative_prompts
    return guided and differ and earlier.case.prompts == own.case.prompts


def _other_bucket(earlier: Request, own: Request) -> bool:
    return earlier.case.size == own.case.size and max(earlier.buckets) != max(own.buckets)


def _captions_exchanged(earlier: Request, own: Request) -> bool:
    return earlier.buckets != own.buckets and sorted(earlier.buckets) == sorted(own.buckets)


CLASSES: Mapping[str, Callable[[Sight], bool]] = {
    "orientation: portrait": lambda sight: _sides(sight) < 0,
    "orientation: landscape": lambda sight: _sides(sight) > 0,
    "orientation: square": lambda sight: _sides(sight) == 0,
    "axis won by: lower cost, h": lambda sight: sight.rule == "lower cost, h",
    "axis won by: lower cost, w": lambda sight: sight.rule == "lower cost, w",
    "axis won by: more tokens, h": lambda sight: sight.rule == "more tokens, h",
    "axis won by: more tokens, w": lambda sight: sight.rule == "more tokens, w",
    "axis won by: tie": lambda sight: sight.rule == "tie, h",
    "shards: even": lambda sight: _uneven(sight) is False,
    "shards: uneven": lambda sight: _uneven(sight) is True,
    "pads: none": lambda sight: _pads(sight) == (0, 0),
    "pads: as on one device": lambda sight: (_pads(sight) or (0, 0))[0] > 0 and (_pads(sight) or (0, 1))[1] == 0,
    "pads: surplus": lambda sight: (_pads(sight) or (0, 0))[1] > 0,
    "caption: at a multiple of 32": lambda sight: any(tokens % PAD_MULTIPLE == 0 for tokens in sight.captions),
    "caption: off a multiple of 32": lambda sight: any(tokens % PAD_MULTIPLE for tokens in sight.captions),
    "captions of a batch: equal buckets": lambda sight: len(sight.captions) > 1 and len(sight.buckets) == 1,
    "captions of a batch: different buckets": lambda sight: len(sight.buckets) > 1,
    "guidance": lambda sight: sight.row.case.guidance_scale > 0,
    "no guidance": lambda sight: sight.row.case.guidance_scale == 0,
    "batch": lambda sight: len(sight.row.case.prompts) > 1,
    "several images": lambda sight: sight.row.case.num_images_per_prompt > 1,
    **{f"ranks: {ranks}": _of_degree(ranks) for ranks in RANKS},
    "ring": lambda sight: sight.row.variant.ring > 1 and sight.row.variant.ulysses == 1,
    "ring x Ulysses": lambda sight: sight.row.variant.ring > 1 and sight.row.variant.ulysses > 1,
    "cache": lambda sight: sight.row.variant.cache != "none",
    "layout: exact": lambda sight: sight.row.variant.layout == "exact",
    "dtype: float32": lambda sight: sight.row.case.dtype == "float32",
    "dtype: bfloat16": lambda sight: sight.row.case.dtype == "bfloat16",
    "attention: another back end": lambda sight: sight.row.variant.options.get("attention", "native") != "native",
    "graph": lambda sight: bool(sight.row.variant.options.get("graph")),
    "steps: 1": lambda sight: sight.row.case.steps == 1,
    "steps: more than 1": lambda sight: sight.row.case.steps > 1,
    "second request": lambda sight: bool(sight.earlier),
    "second request: the same again": _after(_same),
    "second request: equal shape": _after(_equal_shape),
    "second request: other negative prompt": _after(_other_negative),
    "second request: other step count": _after(lambda earlier, own: earlier.case.steps != own.case.steps),
    "second request: other bucket": _after(_other_bucket),
    "second request: captions exchanged": _after(_captions_exchanged),
}
"""Every class by its name, and whether a row meets it."""

SHAPE_CLASSES = tuple(name for name in CLASSES if name.startswith(("orientation", "axis", "shards", "pads")))
"""Classes that size and degree decide."""


FLAT_CLASSES: Mapping[str, Callable[[Sight], bool]] = {
    "flat cut: even parts": lambda sight: bool(sight.flat) and not any(n % sight.degree for n in sight.flat),
    "flat cut: uneven parts": lambda sight: any(n % sight.degree for n in sight.flat),
    "flat cut: a border inside the caption": lambda sight: any(
        sight.flat[0] < b < sight.flat[1] for b in sight.borders
    ),
    "flat cut: masks over uneven parts": lambda sight: (
        len(sight.buckets) > 1 and any(n % sight.degree for n in sight.flat)
    ),
}
"""Classes of rows whose engine cuts the padded sequence of image and caption, not the picture."""

OF_PICTURE_CUTS = ("axis", "shards", "pads", "layout")
"""Beginnings of classes that no engine can meet which cuts the flat sequence."""


@dataclass(frozen=True)
class Coverage:
    """Rows by class, in the order of :data:`CLASSES`; a class without rows is not met."""

    rows: Mapping[str, tuple[str, ...]]

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes that no row meets."""
        return tuple(name for name, rows in self.rows.items() if not rows)


def cover(planned: Sequence[tuple[Matrix, Graph]]) -> Coverage:
    """Sort the rows of one or several matrices into classes.

    Rows are named ``CASE/VARIANT``, and with several matrices ``MATRIX: CASE/VARIANT``.
    """
    found: dict[str, list[str]] = {name: [] for name in _classes(planned)}
    for matrix, graph in planned:
        prefix = f"{matrix.name}: " if len(planned) > 1 else ""
        for sight in sights(graph):
            for name in found.keys() & met_by(sight):
                found[name].append(prefix + sight.row.name)
    return Coverage({name: tuple(rows) for name, rows in found.items()})


def met_by(sight: Sight) -> tuple[str, ...]:
    """Return the names of the classes that a row meets."""
    return tuple(name for name, meets in (*CLASSES.items(), *FLAT_CLASSES.items()) if meets(sight))


def _classes(planned: Sequence[tuple[Matrix, Graph]]) -> list[str]:
    """List the classes that the engines of matrices can meet."""
    drawn = [row for _, graph in planned for row in graph.rows if row.skip is None and row.variant.degree > 1]
    rows = {row.variant.engine: row for row in drawn}
    flat = {name: row for name, row in rows.items() if plugins.load("engines", name).axes == ("none",)}
    if not flat:
        return list(CLASSES)
    if len(flat) < len(rows):
        return [*CLASSES, *FLAT_CLASSES]
    kept = [name for name in CLASSES if not name.startswith(OF_PICTURE_CUTS)]
    return [name for name in (*kept, *FLAT_CLASSES) if any(_can_meet(name, row) for row in flat.values())]


def _can_meet(name: str, row: Row) -> bool:
    """Whether the engine of a row, which cuts the flat sequence, has what a class needs."""
    engine = plugins.load("engines", row.variant.engine)
    if name == "cache":
        return len(engine.caches) > 1
    if name.startswith("attention"):
        return "attention" in engine.options
    if name == "graph":
        return "graph" in engine.options
    ranks = {"ring": [(1, 2)], "ring x Ulysses": [(2, 2), (3, 2)], "flat cut: uneven parts": [(3, 1)]}
    ranks["flat cut: masks over uneven parts"] = [(3, 1)]
    ranks |= {f"ranks: {number}": [(number, 1), (1, number)] for number in RANKS}
    model = models.resolve(row.case.model, row.case.revision)
    variants = [Variant(engine.name, *degrees, axis="none") for degrees in ranks.get(name, ())]
    return not variants or any(plugins.ask(engine, "limits", row.case, each, model) is None for each in variants)


def sights(graph: Graph) -> Iterator[Sight]:
    """Collect every row that is split over ranks."""
    known: dict[tuple[str, str | None], ModelSpec] = {}
    for row in graph.rows:
        if row.skip is None and row.variant.degree > 1:
            key = (row.case.model, row.case.revision)
            known[key] = known.get(key) or models.resolve(*key)
            yield sight_of(row, graph, counter(known[key]))


def sight_of(row: Row, graph: Graph, count: CountTokens) -> Sight:
    """Look at one row that is drawn."""
    earlier: list[Request] = []
    spec = graph.specs[row.runs["candidate"]]
    while spec.after:
        spec = graph.specs[spec.after]
        earlier.append(Request(spec.case, captions_of(spec.case, count)))
    return Sight(row, captions_of(row.case, count), tuple(earlier))


def captions_of(case: Case, count: CountTokens) -> tuple[int, ...]:
    """Count the tokens of each caption of a case: prompts and, with guidance, negative prompts."""
    return tuple(count(prompt) for prompt in (*case.prompts, *case.negative_prompts))
