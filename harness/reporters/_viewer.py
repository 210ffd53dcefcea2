"""Data of a row's picture viewer: layers, shards with their pads, worst tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.reporters._cards import Card, Strip
from harness.reporters._words import number_text, plural
from harness.types import PIXELS_PER_TOKEN, Relation, Row

PICTURES = ("golden", "baseline", "replay", "candidate")
TILED = (Relation.EXCHANGE, Relation.LAYOUT, Relation.PAIR, Relation.GOLDEN_CANDIDATE)
"""Relations whose worst tile is outlined, and after which its outline is named."""


@dataclass(frozen=True)
class Layer:
    """A picture that the viewer can show; without a file it says why."""

    name: str
    title: str
    caption: str
    file: str | None
    reduced: bool
    heat: bool
    """Amplified difference, with the shards drawn in."""


@dataclass(frozen=True)
class Box:
    """A labelled rectangle in pixels of the picture."""

    name: str
    x: int
    y: int
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Bar:
    """Tokens that one rank brings to attention, as shares of the longest sequence in percent."""

    name: str
    image_tokens: int
    pads: int
    image_share: float
    pad_share: float


@dataclass(frozen=True)
class Viewer:
    """Everything that the scripts of a row's page are told."""

    size_px: tuple[int, int]
    pictures: tuple[tuple[Layer, ...], ...]
    """Layers of each picture of a batch."""
    shards: tuple[Box, ...]
    tiles: tuple[Box, ...]
    bars: tuple[Bar, ...]

    @property
    def data(self) -> dict[str, Any]:
        """Data that is written into the page, as plain JSON."""
        return {
            "size": self.size_px,
            "pictures": [[asdict(layer) for layer in layers] for layers in self.pictures],
            "shards": [asdict(box) for box in self.shards],
            "tiles": [asdict(box) for box in self.tiles],
        }


def viewer_of(row: Row, strips: Sequence[Strip]) -> Viewer:
    """Gather what the viewer of a row shows."""
    return Viewer(
        size_px=(row.case.size.width_px, row.case.size.height_px),
        pictures=tuple(_layers(strip) for strip in strips),
        shards=_shards(row),
        tiles=_tiles(row),
        bars=_bars(row),
    )


def _layers(strip: Strip) -> tuple[Layer, ...]:
    return tuple(
        Layer(card.name, card.title, card.caption or card.words, card.file, card.reduced, card.heat)
        for card in strip.cards
    )


def _shards(row: Row) -> tuple[Box, ...]:
    """Outline the shard of each rank; its label counts lines, tokens and pads."""
    plan = row.plan
    if plan is None:
        return ()
    boxes = []
    for rank, (origin, count) in enumerate(zip(plan.origins, plan.shard_tokens, strict=True)):
        start, extent = origin * PIXELS_PER_TOKEN, count * PIXELS_PER_TOKEN
        pads = plan.sequence_lengths[rank] - plan.local_tokens[rank] if plan.sequence_lengths else 0
        lines = plural(count, "row" if plan.axis == "h" else "column")
        label = f"rank {rank}: {lines}, {plan.local_tokens[rank]} tokens + {plural(pads, 'pad')}"
        size = row.case.size
        across = (0, start, size.width_px, extent) if plan.axis == "h" else (start, 0, extent, size.height_px)
        boxes.append(Box(f"rank {rank}", *across, label))
    return tuple(boxes)


def _tiles(row: Row) -> tuple[Box, ...]:
    """Outline the worst tile of each relation that has one."""
    boxes = []
    for relation in TILED:
        comparison = row.comparison(relation)
        figure = comparison.figure("worst-tile", "image") if comparison else None
        if figure is not None and figure.where_px is not None:
            left, top, right, bottom = figure.where_px
            label = f"worst tile of {relation.value}: {number_text(figure.value, figure.unit)} {figure.unit}"
            boxes.append(Box(relation.value, left, top, right - left, bottom - top, label))
    return tuple(boxes)


def _bars(row: Row) -> tuple[Bar, ...]:
    """Count the image tokens and pads of one device and of each rank."""
    plan = row.plan
    if plan is None or not plan.sequence_lengths:
        return ()
    ranks = list(zip(plan.local_tokens, plan.sequence_lengths, strict=True))
    counts = [(f"rank {rank}", own, length - own) for rank, (own, length) in enumerate(ranks)]
    if row.choice is not None:
        counts.insert(0, ("one device", sum(plan.local_tokens), row.choice.single_pad_tokens))
    longest = max(own + pads for _, own, pads in counts) or 1
    return tuple(Bar(name, own, pads, 100 * own / longest, 100 * pads / longest) for name, own, pads in counts)


def shown_card(strip: Strip) -> tuple[Card | None, Card | None]:
    """Choose what the overview shows of a row: the candidate, and the first difference that has a picture."""
    pictures = {card.name: card for card in strip.pictures if card.file}
    difference = next((card for card in strip.differences if card.file), None)
    return pictures.get("candidate") or pictures.get("baseline"), difference
