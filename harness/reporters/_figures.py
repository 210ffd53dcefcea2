"""The table of all figures behind a row: one line per relation, one column per metric and domain."""

from __future__ import annotations

from dataclasses import dataclass

from harness.reporters._words import NOTHING, judged, number_text, state_of
from harness.types import Comparison, Domain, Figure, Relation, Row

METRIC_WORDS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "worst-tile": "worst tile",
    "p999": "p99.9",
    "max-abs": "max abs",
}
"""Names for people, in the order of the columns; metrics of other distributions follow under their own."""

DOMAINS: tuple[Domain, ...] = ("latents", "image")


@dataclass(frozen=True)
class FigureCell:
    """A number and the place it speaks of."""

    text: str
    where: str = ""


@dataclass(frozen=True)
class FigureLine:
    """One relation: its figures and what it was held to."""

    relation: str
    state: str
    cells: tuple[FigureCell, ...]
    sentence: str


@dataclass(frozen=True)
class FigureTable:
    """Head, lines and the names of the metrics' variants."""

    groups: tuple[tuple[str, int], ...]
    """Domains with the number of their columns."""
    columns: tuple[tuple[str, str], ...]
    """Metric and unit."""
    lines: tuple[FigureLine, ...]
    variants: tuple[str, ...]


def figure_table(row: Row) -> FigureTable:
    """Lay out every figure of a row."""
    columns = _columns(row)
    return FigureTable(
        groups=tuple((d, n) for d in DOMAINS if (n := sum(domain == d for domain, _ in columns))),
        columns=tuple((METRIC_WORDS.get(metric, metric), _unit(row, d, metric)) for d, metric in columns),
        lines=tuple(_line(row, comparison, columns) for comparison in _in_order(row)),
        variants=tuple(dict.fromkeys(_variant(f) for c in row.comparisons for f in c.figures)),
    )


def _in_order(row: Row) -> list[Comparison]:
    order = list(Relation)
    return sorted(row.comparisons, key=lambda comparison: order.index(comparison.relation))


def _columns(row: Row) -> list[tuple[Domain, str]]:
    known = list(METRIC_WORDS)
    found = {(figure.domain, figure.metric) for comparison in row.comparisons for figure in comparison.figures}

    def place(column: tuple[Domain, str]) -> tuple[int, int, str]:
        domain, metric = column
        return DOMAINS.index(domain), known.index(metric) if metric in known else len(known), metric

    return sorted(found, key=place)


def _unit(row: Row, domain: Domain, metric: str) -> str:
    figures = (comparison.figure(metric, domain) for comparison in row.comparisons)
    unit = next((figure.unit for figure in figures if figure), "")
    return "" if unit in ("1", "abs") else unit


def _variant(figure: Figure) -> str:
    return f"{METRIC_WORDS.get(figure.metric, figure.metric)}, {figure.domain}: {figure.variant}"


def _line(row: Row, comparison: Comparison, columns: list[tuple[Domain, str]]) -> FigureLine:
    ok, judgements = judged(row, comparison.relation)
    return FigureLine(
        relation=comparison.relation.value,
        state=state_of(ok),
        cells=tuple(_cell(comparison, domain, metric) for domain, metric in columns),
        sentence=comparison.problem or "; ".join(dict.fromkeys(j.sentence for j in judgements)) or comparison.note,
    )


def _cell(comparison: Comparison, domain: Domain, metric: str) -> FigureCell:
    if comparison.same_run:
        return FigureCell("same run")
    if comparison.exact_latents if domain == "latents" else comparison.exact_image:
        return FigureCell("exact")
    figure = comparison.figure(metric, domain)
    if figure is None:
        return FigureCell(NOTHING)
    where = f"at {figure.where_px[0]},{figure.where_px[1]} px" if figure.where_px else ""
    return FigureCell(number_text(figure.value, figure.unit), where)
