"""``results.csv``: every figure, one line per row and relation, for a spreadsheet or pandas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from harness.files import write_text
from harness.plugins import Reporter
from harness.reporters._costs import exchanged_bytes, peak_memory_bytes, request_number, served_steps, step_s
from harness.reporters._words import judged, outcome_of, outcome_word, run_of, sentence_of
from harness.types import Comparison, Figure, Report, Row


class CsvReporter(Reporter):
    """Writes tidy results: a figure is empty where no finite number exists; ``exact`` says why."""

    name = "csv"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``results.csv`` and return its path."""
        lines = [line for row in report.rows for line in _lines(report, row)]
        # "Int64" and "boolean" keep a column with gaps from turning 64 into 64.0 and True into 1.0
        frame = pd.DataFrame(lines, columns=_columns(lines)).convert_dtypes()
        return write_text(folder / "results.csv", frame.to_csv(index=False, lineterminator="\n"))


def _columns(lines: list[dict[str, Any]]) -> list[str]:
    """Columns in the order in which they occur, those of steps last and by number."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    steps = [name for name in names if re.fullmatch(r"step_\d+_db|steps_exact", name)]
    numbers = {name: int("".join(re.findall(r"\d", name)) or 0) for name in steps}
    return [name for name in names if name not in numbers] + sorted(steps, key=lambda name: numbers[name])


def _lines(report: Report, row: Row) -> list[dict[str, Any]]:
    """Lines of one row: one per comparison, or a single one without figures."""
    common = {**_identity(row), "request": request_number(report, row), **_plan(row), **_outcome(report, row)}
    comparisons: tuple[Comparison | None, ...] = row.comparisons or (None,)
    return [{**common, **_comparison(row, comparison)} for comparison in comparisons]


def _identity(row: Row) -> dict[str, Any]:
    case, variant = row.case, row.variant
    return {
        "row": row.name,
        "case": case.name,
        "model": case.model,
        "size": str(case.size),
        "width_px": case.size.width_px,
        "height_px": case.size.height_px,
        "num_images": case.num_images,
        "steps": case.steps,
        "seed": case.seed,
        "dtype": case.dtype,
        "device": case.device,
        "engine": variant.engine,
        "variant": variant.label,
        "ulysses": variant.ulysses,
        "ring": variant.ring,
        "layout": variant.layout,
        "cache": variant.cache,
        "fault": variant.fault,
        "axis_asked": variant.axis,
        "sequence": case.sequence,
    }


def _plan(row: Row) -> dict[str, Any]:
    plan, choice = row.plan, row.choice
    return {
        "axis_used": plan.axis if plan else None,
        "rule": choice.rule if choice else None,
        "shard_tokens": "|".join(map(str, plan.shard_tokens)) if plan else None,
        "local_tokens": "|".join(map(str, plan.local_tokens)) if plan else None,
        "sequence_target": plan.sequence_target if plan else None,
        "sequence_lengths": "|".join(map(str, plan.sequence_lengths)) if plan else None,
        "pad_tokens": plan.pad_tokens if plan else None,
        "single_pad_tokens": choice.single_pad_tokens if choice else None,
        "surplus_pad_tokens": plan.surplus_pad_tokens if plan else None,
    }


def _outcome(report: Report, row: Row) -> dict[str, Any]:
    candidate = run_of(report, row, "candidate")
    drawn = candidate if candidate and candidate.failure is None else None
    return {
        "outcome": outcome_word(outcome_of(row)),
        "cause": row.verdict.cause if row.verdict else None,
        "sentence": sentence_of(row),
        "candidate_run": row.runs.get("candidate"),
        "shares_with": row.shares_with,
        "candidate_wall_s": candidate.wall_s if candidate else None,
        "candidate_step_s": step_s(drawn),
        "baseline_step_s": step_s(run_of(report, row, "baseline")),
        "candidate_peak_memory_bytes": peak_memory_bytes(drawn),
        "baseline_peak_memory_bytes": peak_memory_bytes(run_of(report, row, "baseline")),
        "exchanged_bytes": exchanged_bytes(drawn),
        "cache_served_steps": served_steps(drawn),
    }


def _comparison(row: Row, comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"relation": None, "exact": None}
    ok, judgements = judged(row, comparison.relation)
    # Of several bounds the one that fails, or else the first.
    deciding = sorted(judgements, key=lambda judgement: judgement.ok is not False)
    bound = deciding[0].bound if deciding else None
    line = {
        "relation": comparison.relation.value,
        "reference": comparison.reference,
        "compared": comparison.candidate,
        "same_run": comparison.same_run,
        "exact": comparison.exact,
        "exact_image": comparison.exact_image,
        "exact_latents": comparison.exact_latents,
        "problem": comparison.problem,
        "note": comparison.note or None,
        "ok": ok,
        "bound_metric": f"{bound.domain} {bound.metric}" if bound else None,
        "bound_direction": bound.direction if bound else None,
        "bound": bound.value if bound else None,
        "bound_unit": bound.unit if bound else None,
        "bound_source": bound.source if bound else None,
        "bound_margin": bound.margin if bound else None,
    }
    figures = {_column(figure): figure.value for figure in comparison.figures}
    return line | figures | _steps(comparison)


def _steps(comparison: Comparison) -> dict[str, Any]:
    """PSNR of the latents after each step; empty where equal, and ``steps_exact`` counts those."""
    steps = comparison.steps_db
    if not steps:
        return {}
    exact = sum(value is None for value in steps)
    return {"steps_exact": exact} | {f"step_{number}_db": value for number, value in enumerate(steps, 1)}


def _column(figure: Figure) -> str:
    """Column of a figure with its unit, ``latents_psnr_db`` or ``image_max_abs_of_255``."""
    unit = "" if figure.unit == "1" else figure.unit
    return re.sub(r"[^a-z0-9]+", "_", f"{figure.domain} {figure.metric} {unit}".lower()).strip("_")
