"""Costs of a run: bytes, seconds per step, steps served by a cache, place in a sequence."""

from __future__ import annotations

from harness.reporters._words import NOTHING, judged, plural, run_of
from harness.types import Outcome, Relation, Report, Row, Run

EXCHANGED = "exchanged_bytes"
COLLECTIVE = "collective_bytes"
NO_MEMORY_FOR_A_GRAPH = "graphs_out_of_memory"
MEGABYTE = 1e6


def exchanged_bytes(run: Run | None) -> int | None:
    """Bytes that all ranks sent to one another, as the engine or the rank counts them; ``None`` where nobody does."""
    return run.counters.get(EXCHANGED, run.counters.get(COLLECTIVE)) if run else None


def megabytes(count: float | None) -> str:
    """Bytes in megabytes of a million, without the unit."""
    if count is None:
        return NOTHING
    if not count:
        return "0"
    amount = count / MEGABYTE
    return f"{amount:,.1f}" if amount >= 10 else f"{amount:.2f}"


def step_s(run: Run | None) -> float | None:
    """Seconds of a typical step; ``None`` where the run broke or timed none."""
    return run.times.typical_step_s if run and run.failure is None else None


def peak_memory_bytes(run: Run | None) -> int | None:
    """Memory of the rank that needed most; ``None`` where it was not measured."""
    return max(run.peak_memory_bytes, default=None) if run else None


def seconds(value: float | None) -> str:
    """Write seconds with three digits after the point."""
    return NOTHING if value is None else f"{value:.3f}"


def served_steps(run: Run | None) -> int | None:
    """Number of steps served by a cache, on the rank where it served most; ``None`` without a cache."""
    if run is None or not run.cache_decisions:
        return None
    return max(map(sum, run.cache_decisions))


def cost_sentences(report: Report, row: Row) -> list[str]:
    """Say what the split run sent and how long a step took beside the baseline's."""
    candidate, baseline = run_of(report, row, "candidate"), run_of(report, row, "baseline")
    sentences = []
    sent = exchanged_bytes(candidate)
    if candidate and sent:
        steps = len(candidate.times.steps_s) or row.case.steps
        ranks = plural(row.variant.degree, "rank")
        sentences.append(f"{ranks} exchanged {megabytes(sent)} MB, {megabytes(sent / steps)} MB a step.")
    if candidate and candidate.counters.get(NO_MEMORY_FOR_A_GRAPH):
        sentences.append("Memory ran out while a graph was recorded: all steps were launched one by one instead.")
    split, whole = step_s(candidate), step_s(baseline)
    if split is not None and whole is not None:
        times = f" ({split / whole:.2f} times)" if whole else ""
        sentences.append(
            f"A step took {seconds(split)} s split and {seconds(whole)} s in the baseline{times}; median without the "
            "first step."
        )
    return sentences


def request_text(report: Report, row: Row) -> str:
    """Say which request of a sequence a row is, ``request 3 of second-request``; empty without a sequence."""
    if row.case.sequence is None or row.skip is not None:
        return ""
    return f"request {request_number(report, row)} of {row.case.sequence}"


def request_number(report: Report, row: Row) -> int | None:
    """Count a row's place in its sequence, from 1; a resident engine serves each variant's requests in order."""
    if row.case.sequence is None or row.skip is not None:
        return None
    served = [
        other.case.name
        for other in report.rows
        if other.skip is None and (other.case.sequence, other.variant) == (row.case.sequence, row.variant)
    ]
    return served.index(row.case.name) + 1


def cache_text(report: Report, row: Row) -> tuple[str, bool | None]:
    """Abbreviate a cache's decisions, and tell whether they are right."""
    if row.variant.cache == "none":
        return NOTHING, None
    ok, _ = judged(row, Relation.CACHE)
    comparison = row.comparison(Relation.CACHE)
    if ok is False or (comparison and comparison.problem):
        return "differs", False
    served = served_steps(run_of(report, row, "candidate"))
    if served is None:
        return NOTHING, ok
    never = served == 0 and row.verdict is not None and row.verdict.outcome is Outcome.ERROR
    return f"{served} of {row.case.steps}", False if never else ok


def cache_note(row: Row) -> str:
    """Say what a cached row's cache did, as the comparison tells it; empty without one."""
    comparison = row.comparison(Relation.CACHE)
    return comparison.note if comparison and not comparison.problem else ""
