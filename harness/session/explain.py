"""Explanation of failing comparisons: both runs are repeated with a probe, and its records evaluated.

Healthy runs cost nothing: only the two runs of a failing comparison are probed, after everything else is done.
Explanations are kept in ``explained/`` of the run folder and used whenever it is judged again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import codec, plugins
from harness.diagnose import divergence, inputs, noise_floor, records, token_ledger
from harness.diagnose.cause import first_failing
from harness.errors import UsageError, did_you_mean
from harness.execution import locks
from harness.execution.events import Finished
from harness.execution.executor import Make
from harness.execution.pool import Pool
from harness.runs.folder import RunFolder
from harness.runs.sample import read_latents
from harness.types import Comparison, Explanation, Relation, Row, Run, RunSpec

EXPLAINED = (Relation.CONTROL, Relation.PADDED_CONTROL, Relation.EXCHANGE, Relation.OWN_EXCHANGE)
"""Relations between two runs that should be one mathematics."""

Array = np.ndarray[Any, Any]


def select(rows: Sequence[Row], names: Sequence[str] = ()) -> list[Row]:
    """Select the rows to explain: those named, or all that fail a comparison which can be explained.

    Behind them stand suspicious rows, which pass.

    Raises
    ------
    UsageError
        If there is no row of a name, or it has no such comparison.
    """
    by_name = {row.name: row for row in rows}
    for name in names:
        if name not in by_name:
            raise UsageError(f"there is no row {name!r}; {did_you_mean(name, list(by_name))}")
        if subject(by_name[name], named=True) is None:
            raise UsageError(f"{name}: {why_not(by_name[name])}")
    if names:
        return [by_name[name] for name in dict.fromkeys(names)]
    chosen = [row for row in rows if subject(row) is not None]
    return sorted(chosen, key=lambda row: row.verdict is not None and row.verdict.suspicious)


def subject(row: Row, named: bool = False) -> Comparison | None:
    """Return the comparison of a row to explain; of a named row without a failure, its exchange comparison."""
    relation = first_failing(row.verdict.judgements) if row.verdict else None
    if row.verdict and row.verdict.suspicious:
        near = noise_floor.suspicious(row.verdict.judgements)
        relation = next((judgement.relation for judgement in near if judgement.relation in EXPLAINED), None)
    if relation not in EXPLAINED and named:
        relation = Relation.EXCHANGE
    comparison = row.comparison(relation) if relation in EXPLAINED else None
    if comparison is None or comparison.same_run or not _can_be_probed(row):
        return None
    return comparison


def why_not(row: Row) -> str:
    """Return the reason why a row cannot be explained."""
    if not _can_be_probed(row):
        return f"the engine {row.variant.engine} does not run on torch; there is nothing to listen to"
    exchange = row.comparison(Relation.EXCHANGE)
    if exchange is None:
        return "it has no pictures to compare; see its verdict in the report"
    return "its candidate and its reference are one run"


def explain(folder: RunFolder, rows: Iterable[Row], make: Make = Pool) -> list[str]:
    """Repeat the runs of rows' comparisons with a probe, and write explanations into the run folder.

    Parameters
    ----------
    folder
        The run folder, with all runs of these rows.
    rows
        From :func:`select`.
    make
        Makes the executor that computes them.

    Returns
    -------
    list of str
        Reasons why comparisons could not be explained, a line each.
    """
    wanted = {folder.explanation_file(c): (c, row) for row in rows if (c := subject(row, named=True)) is not None}
    wanted = {file: found for file, found in wanted.items() if not file.is_file()}
    specs = folder.plan.specs
    chains = {
        digest: _probed(specs[digest], specs) for c, _ in wanted.values() for digest in (c.reference, c.candidate)
    }
    place = folder.path / "explained" / "runs"
    drawn: dict[str, Run] = {}
    needed = {spec.digest: spec for chain in chains.values() for spec in chain}
    with make(folder.path / "logs" / "explained") as executor, locks.claimed(folder.path, "explaining"):
        for event in executor.execute(list(needed.values()), lambda spec: place / spec.digest):
            if isinstance(event, Finished):
                drawn[event.run.spec.digest] = event.run
    problems = []
    for file, (comparison, row) in wanted.items():
        probed = [drawn[chains[digest][-1].digest] for digest in (comparison.reference, comparison.candidate)]
        failed = next((run.failure for run in probed if run.failure), None)
        if failed:
            problems.append(f"{row.name}: could not be drawn once more: {failed.message}")
        else:
            codec.write_json(file, _read_off(folder, place, comparison, row, probed[0], probed[1]))
    shutil.rmtree(place, ignore_errors=True)
    return problems


def _can_be_probed(row: Row) -> bool:
    return "torch" in plugins.load("engines", row.variant.engine).packages


def _probed(spec: RunSpec, specs: Mapping[str, RunSpec]) -> list[RunSpec]:
    """Return a run with a probe, preceded by the earlier requests of its sequence."""
    earlier = _probed(specs[spec.after], specs) if spec.after else []
    return [*earlier, replace(spec, probe=True, after=earlier[-1].digest if earlier else "")]


def _read_off(
    folder: RunFolder, place: Path, comparison: Comparison, row: Row, reference: Run, candidate: Run
) -> Explanation:
    size, dtype = row.case.size, row.case.dtype
    known = records.read(place / reference.spec.digest, reference.spec.world_size)
    found = records.read(place / candidate.spec.digest, candidate.spec.world_size)
    left_out = list(dict.fromkeys(line for probe in (*known, *found) for line in probe.left_out))
    sides = (comparison.reference, comparison.candidate)
    latents = {digest: _latents(folder.path / "runs" / digest) for digest in sides}
    result = Explanation(
        comparison.relation,
        comparison.reference,
        comparison.candidate,
        tolerance=divergence.TOLERANCE[dtype],
        redrawn_db={
            "reference": _distance_db(latents[comparison.reference], _latents(place / reference.spec.digest)),
            "candidate": _distance_db(latents[comparison.candidate], _latents(place / candidate.spec.digest)),
        },
    )
    if len(known) != 1 or not known[0].keys:
        return replace(result, left_out=(*left_out, "the reference shows no attention that is known here"))
    result = replace(
        result,
        times_off=inputs.times_off(known[0], found, dtype),
        weights_off=inputs.weights_off(known[0], found),
        batches=(inputs.batch(known[0]), max(map(inputs.batch, found))),
        caption_keys=(inputs.caption_keys(known[0]), max(map(inputs.caption_keys, found))),
    )
    result = replace(result, ledger=token_ledger.telling(token_ledger.ledger(known[0], found, size.tokens, dtype)))
    plan = candidate.spec.plan
    if plan is None:
        return replace(result, left_out=(*left_out, "blocks: the engine does not say which tokens a rank holds"))
    result = replace(
        result,
        blocks=divergence.trace(known[0], found, plan, size, dtype),
        out_of_place=divergence.out_of_place(known[0], found, plan, size),
        displaced=divergence.displaced(latents[comparison.reference], latents[comparison.candidate], plan),
        left_out=tuple(left_out),
    )
    first = result.first_divergence
    if first is None:
        return result
    errors = divergence.token_errors(known[0], found, plan, size, first.step, first.module)
    return replace(result, token_errors=errors)


def _latents(folder: Path) -> Array:
    latents: Array = read_latents(folder / "latents.safetensors")["latents"]
    return latents


def _distance_db(first: Array, second: Array) -> float | None:
    """Return the PSNR of two latents in dB over the span of the first; ``None`` where they are equal."""
    if first.shape == second.shape and np.array_equal(first, second):
        return None
    if first.shape != second.shape:
        return 0.0
    error = float(np.square(first.astype(np.float64) - second).mean())
    span = float(first.max()) - float(first.min())
    return round(10 * np.log10(span**2 / error), 2) if span > 0 and np.isfinite(error) else 0.0
