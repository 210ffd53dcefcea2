"""Table of the cost of splitting, a line for each cut: pads, fidelity, seconds a step, peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from harness.types import Comparison, Domain, Relation, Report, Row, Run, Variant

NOTHING = "\N{EN DASH}"

HEADS = {
    "case": "case",
    "split": "split",
    "axis": "axis",
    "layout": "layout",
    "shards": "shards",
    "pads": "pads (SP / single)",
    "pair": "SP vs single (pair)",
    "exchange": "SP vs replay (exchange)",
    "surplus": "replay vs single (layout)",
    "step": "s a step (single -> SP)",
    "memory": "peak GB (single -> SP)",
    "verdict": "verdict",
}
"""Field of :class:`Line` to the head of its column."""


@dataclass(frozen=True)
class Line:
    """Line of the table: one cut of one case; figures of latents and pictures are formatted ``A / B``."""

    case: str
    split: str
    axis: str
    layout: str
    shards: str
    pads: str
    pair: str
    exchange: str
    surplus: str
    step: str
    memory: str
    verdict: str


KEY = (
    "Figures are PSNR in dB, latents / images; exact: equal to the last bit. Peak memory is that of the rank that "
    "needed most; a step is the median without the first."
)


def lines(report: Report) -> list[Line]:
    """Make a line for each cut that was drawn, in the order of the matrix.

    Rows that share the candidate's run (``auto`` and the axis it chose) share a line.
    """
    found: dict[str, Row] = {}
    for row in report.rows:
        run = _run(report, row, "candidate")
        if run is not None and row.variant.degree > 1:
            known = found.get(run.spec.digest)
            if known is None or (known.variant.axis == "auto" and row.variant.axis != "auto"):
                found[run.spec.digest] = row
    return [_line(report, row) for row in found.values()]


def markdown(lines: Sequence[Line]) -> str:
    """Format lines as a Markdown table."""
    rows = [list(HEADS.values()), ["---"] * len(HEADS), *(map(str, astuple(line)) for line in lines)]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
    return f"{table}\n{KEY}\n"


def _run(report: Report, row: Row, role: str) -> Run | None:
    run = report.runs.get(row.runs.get(role, ""))
    return run if run is not None and run.failure is None else None


def _line(report: Report, row: Row) -> Line:
    single, split = _run(report, row, "baseline"), _run(report, row, "candidate")
    plan, size = row.plan, str(row.case.size)
    outcome = row.verdict.outcome.value if row.verdict else "not judged"
    return Line(
        case=size if row.case.name == size else f"{row.case.name} ({size})",
        split=_split(row.variant),
        axis=plan.axis if plan else row.variant.axis,
        layout=row.variant.layout,
        shards=",".join(map(str, plan.shard_tokens)) if plan else NOTHING,
        pads=_pads(row),
        pair=_figures(row, Relation.PAIR),
        exchange=_figures(row, Relation.EXCHANGE),
        surplus=_figures(row, Relation.LAYOUT),
        step=f"{_step(single)} -> {_step(split)}",
        memory=f"{_memory(single)} -> {_memory(split)}",
        verdict=outcome.replace("_", " "),
    )


def _pads(row: Row) -> str:
    """Return pads of split and single device, by the plan or as the engine declares them."""
    if row.plan is not None:
        return f"{row.plan.pad_tokens} / {NOTHING if row.choice is None else row.choice.single_pad_tokens}"
    return f"{row.pads.total} / {row.pads.single}" if row.pads else NOTHING


def _split(variant: Variant) -> str:
    """Return a variant's label without axis and layout: ``spatial-u2``, ``spatial-u2-r2-cache-dit``."""
    plain = Variant(
        variant.engine,
        variant.ulysses,
        variant.ring,
        "none",
        cache=variant.cache,
        fault=variant.fault,
        options=variant.options,
        environment=variant.environment,
    )
    return plain.label


def _figures(row: Row, relation: Relation) -> str:
    comparison = row.comparison(relation)
    return f"{figure_text(comparison, 'latents')} / {figure_text(comparison, 'image')}"


def figure_text(comparison: Comparison | None, domain: Domain) -> str:
    """Format the PSNR of a comparison, ``exact`` where both sides are equal."""
    if comparison is None or comparison.problem is not None:
        return NOTHING
    if comparison.same_run or (comparison.exact_latents if domain == "latents" else comparison.exact_image):
        return "exact"
    figure = comparison.figure("psnr", domain)
    return NOTHING if figure is None or figure.value is None else f"{figure.value:.1f}"


def _step(run: Run | None) -> str:
    seconds = run.times.typical_step_s if run else None
    return NOTHING if seconds is None else f"{seconds:.3f}"


def _memory(run: Run | None) -> str:
    return f"{max(run.peak_memory_bytes) / 1e9:.1f}" if run and run.peak_memory_bytes else NOTHING
