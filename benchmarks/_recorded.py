"""What a run has recorded of itself: its rows, its runs, and the journal while it is under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _outside import Command

from harness import codec
from harness.runs.folder import RunFolder
from harness.types import SCHEMA, Outcome, Report, Run, RunSpec


def journal(folder: RunFolder) -> list[dict[str, Any]]:
    """Whole lines of a run's journal."""
    path = folder.path / "journal.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def outcomes(folder: RunFolder) -> dict[str, str]:
    """Case to outcome, as reported.

    Raises
    ------
    RuntimeError
        If there is no report.
    """
    if not (folder.path / "report.json").is_file():
        raise RuntimeError(f"{folder.path}: the run left no report.json")
    report = codec.read_json(folder.path / "report.json", Report, SCHEMA)
    return {row.case.name: (row.verdict.outcome if row.verdict else Outcome.SKIP).value for row in report.rows}


def until_drawing(run: Command, folder: RunFolder, case: str) -> None:
    """Wait until the ranks are in the middle of a case."""
    digest = spec_of(folder, case).digest

    def drawing() -> bool:
        steps = [line for line in journal(folder) if line["event"] == "step" and line["run"] == digest]
        return len(steps) >= 2 and len(run.ranks()) == 2

    run.until(drawing, f"two ranks to be drawing {case!r}")


def limit_time(plan: Any, case: str, timeout_s: float) -> None:
    """Give a case another time limit, wherever a plan speaks of it."""
    if isinstance(plan, dict) and plan.get("name") == case and "timeout_s" in plan:
        plan["timeout_s"] = timeout_s
    for part in plan.values() if isinstance(plan, dict) else plan if isinstance(plan, list) else ():
        limit_time(part, case, timeout_s)


def split_runs(folder: RunFolder) -> list[RunSpec]:
    return [spec for spec in folder.plan.specs.values() if spec.world_size > 1]


def spec_of(folder: RunFolder, case: str) -> RunSpec:
    return next(spec for spec in split_runs(folder) if spec.case.name == case)


def run_of(folder: RunFolder, case: str) -> Run:
    return folder.runs()[spec_of(folder, case).digest]


def end_of(folder: RunFolder, case: str) -> dict[str, Any] | None:
    digest = spec_of(folder, case).digest
    found = [line for line in journal(folder) if line["event"] == "finished" and line["run"] == digest]
    return found[-1] if found else None


def only_run(out: Path) -> RunFolder:
    plans = list(out.glob("*/plan.json"))
    if len(plans) != 1:
        raise RuntimeError(f"one run should have left its folder in {out}, {len(plans)} have")
    return RunFolder.open(plans[0].parent)


def held_now(folder: RunFolder) -> list[int]:
    """GPUs the run holds by its own account."""
    lines = [line for line in journal(folder) if line["event"] == "devices"]
    return list(lines[-1]["held"]) if lines else []


def spans_held(folder: RunFolder) -> list[tuple[int, float, float]]:
    """GPU, since when, until when: all that a run held, by its own account."""
    spans: list[tuple[int, float, float]] = []
    since: dict[int, float] = {}
    for line in journal(folder):
        if line["event"] != "devices":
            continue
        moment, held = line["time"], set(line["held"])
        spans += [(gpu, since.pop(gpu), moment) for gpu in list(since) if gpu not in held]
        since |= {gpu: moment for gpu in held if gpu not in since}
    return spans + [(gpu, moment, float("inf")) for gpu, moment in since.items()]


def overlaps(one: list[tuple[int, float, float]], two: list[tuple[int, float, float]]) -> int:
    return sum(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a in one for b in two)
