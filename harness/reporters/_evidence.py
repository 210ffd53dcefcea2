"""Evidence of a failing row: token ledger, error growth, and map of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.types import BlockError, Explanation, LedgerLine, Row

WIDTH, HEIGHT = 560, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24
SMALLEST = 1e-8
"""Errors are drawn on a scale of powers of ten that ends here."""

MAP_SIDE = 300
"""Longer side of the token map."""

MAX_LEDGER_LINES = 40


@dataclass(frozen=True)
class Bar:
    """One block of one step in the drawing."""

    x: float
    y: float
    width: float
    height: float
    beyond: bool
    text: str


@dataclass(frozen=True)
class Mark:
    """A place on an axis with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Growth:
    """Error of every block, step after step, on a logarithmic scale."""

    bars: tuple[Bar, ...]
    powers: tuple[Mark, ...]
    steps: tuple[Mark, ...]
    tolerance_y: float
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


@dataclass(frozen=True)
class Cell:
    """An image token of the map; ``shade`` is 0 at the tolerance and 1 at the worst."""

    x: int
    y: int
    shade: float


@dataclass(frozen=True)
class TokenMap:
    """Image tokens beyond the tolerance, with the borders of the shards, in token units."""

    columns: int
    rows: int
    cells: tuple[Cell, ...]
    borders: tuple[tuple[int, int, int, int], ...]
    side: int = MAP_SIDE


@dataclass(frozen=True)
class EvidenceView:
    """Everything the page shows of one row."""

    cause: str
    lines: tuple[str, ...]
    ledger: tuple[LedgerLine, ...] = ()
    ledger_left_out: int = 0
    growth: Growth | None = None
    token_map: TokenMap | None = None
    map_title: str = ""
    left_out: tuple[str, ...] = ()


def evidence_of(row: Row) -> EvidenceView | None:
    """Gather the evidence of a row; ``None`` where there is none to show."""
    if row.verdict is None or not row.verdict.evidence:
        return None
    cause, lines, inside = row.verdict.cause or "", row.verdict.evidence, row.explanation
    if inside is None:
        return EvidenceView(cause, lines)
    first = inside.first_divergence
    return EvidenceView(
        cause,
        lines,
        ledger=inside.ledger[:MAX_LEDGER_LINES],
        ledger_left_out=max(0, len(inside.ledger) - MAX_LEDGER_LINES),
        growth=_growth(inside),
        token_map=_map(row, inside),
        map_title=f"step {first.step}, {first.module}" if first else "",
        left_out=inside.left_out,
    )


def _growth(inside: Explanation) -> Growth | None:
    if not inside.blocks:
        return None
    largest = max([1.0, *(block.error for block in inside.blocks if block.error is not None)])
    share = (WIDTH - LEFT - RIGHT) / len(inside.blocks)
    bars = [
        _bar(block, LEFT + number * share, share, largest, inside.tolerance)
        for number, block in enumerate(inside.blocks)
    ]
    steps = []
    for step, group in groupby(zip(inside.blocks, bars, strict=True), key=lambda pair: pair[0].step):
        steps.append(Mark(next(group)[1].x, f"step {step}"))
    powers = range(math.ceil(math.log10(SMALLEST)), math.floor(math.log10(largest)) + 1, 2)
    marks = tuple(Mark(_height_of(10.0**power, largest), f"1e{power}") for power in powers)
    return Growth(tuple(bars), marks, tuple(steps), _height_of(inside.tolerance, largest))


def _bar(block: BlockError, x: float, share: float, largest: float, tolerance: float) -> Bar:
    y = TOP if block.error is None else _height_of(block.error, largest)
    said = "not finite" if block.error is None else f"{block.error:.2g}"
    beyond = block.error is None or block.error > tolerance
    text = f"step {block.step}, {block.module}: {said}, worst on rank {block.rank}"
    return Bar(x, y, max(share - 1, 0.5), HEIGHT - BOTTOM - y, beyond, text)


def _height_of(error: float, largest: float) -> float:
    span = math.log10(largest) - math.log10(SMALLEST)
    place = (math.log10(max(error, SMALLEST)) - math.log10(SMALLEST)) / span
    return HEIGHT - BOTTOM - place * (HEIGHT - BOTTOM - TOP)


def _map(row: Row, inside: Explanation) -> TokenMap | None:
    columns, rows = row.case.size.tokens_w, row.case.size.tokens_h
    if row.plan is None or len(inside.token_errors) != columns * rows or not any(_shades(inside)):
        return None
    cells = [
        Cell(number % columns, number // columns, shade)
        for number, shade in enumerate(_shades(inside))
        if shade is not None
    ]
    if row.plan.axis == "h":
        borders = tuple((0, origin, columns, origin) for origin in row.plan.origins[1:])
    else:
        borders = tuple((origin, 0, origin, rows) for origin in row.plan.origins[1:])
    return TokenMap(columns, rows, tuple(cells), borders)


def _shades(inside: Explanation) -> Sequence[float | None]:
    """Darkness of each token beyond the tolerance; ``None`` for the others."""
    known = [error for error in inside.token_errors if error is not None]
    span = math.log10(max([inside.tolerance * 10, *known])) - math.log10(inside.tolerance)
    shades: list[float | None] = []
    for error in inside.token_errors:
        if error is None:
            shades.append(1.0)
        elif error <= inside.tolerance:
            shades.append(None)
        else:
            shades.append(round(0.15 + 0.85 * (math.log10(error) - math.log10(inside.tolerance)) / span, 2))
    return shades
