"""Rows with layouts, caches, sequences and batches, and ways to look at what is written of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness.judging.judge import judge
from harness.judging.measure import compare_decisions
from harness.planning.cut import choose_axis
from harness.plugins import load
from harness.types import Case, Relation, Row, Run, Size, Times, Variant

from .conftest import FIGURED, edge, scene

STEPS = 4
SQUARE = Case("square", "nano", Size(144, 144), ("a ball",), steps=STEPS)
SERVED = (False, False, True, False)


def add_row(sample: Any, case: Case, layout: Literal["aligned", "exact"], **how: Any) -> Row:
    """Add a row on axis h with real plans, runs, pictures and a verdict of the harness itself."""
    variant = Variant("spatial", ulysses=2, axis=how.pop("axis", "h"), layout=layout, cache=how.pop("cache", "none"))
    choice = choose_axis(case.size, 2, variant.axis, layout=layout)
    plan = choice.chosen
    assert plan is not None
    surplus = plan.surplus_pad_tokens
    cached = {"cache": variant.cache}
    baseline = draw(sample, case, **cached)
    control = draw(sample, case, engine="spatial", **cached)
    replay = draw(sample, case, image_pad_tokens=plan.pad_tokens, **cached) if surplus else baseline
    candidate = draw(sample, case, engine="spatial", ulysses=2, plan=plan, layout=layout, **cached, **how)
    runs = {"baseline": baseline, "replay": replay, "control": control, "candidate": candidate}
    split, pads = (None, None) if layout == "exact" else (141.0, 24.5 if surplus else None)
    levels = dict(zip(FIGURED[:4], (split, None, pads, pads or split), strict=True))
    comparisons = [edge(relation, runs, db) for relation, db in levels.items()]
    reordered = draw(sample, case, token_order="reversed", **cached)
    runs["reordered"] = reordered
    comparisons.append(replace(edge(Relation.PAIR, runs, 138.0), relation=Relation.FLOOR, candidate=reordered))
    if variant.cache != "none":
        comparisons.insert(0, compare_decisions(sample.runs[replay], sample.runs[candidate]))
    row = Row(case, variant, choice, plan, runs=runs, comparisons=tuple(comparisons))
    sample.rows.append(replace(row, verdict=judge(row, sample.runs)))
    return sample.rows[-1]


def draw(sample: Any, case: Case, **spec: Any) -> str:
    """Record a run with as many pictures as the case asks for, what it sent, and what its cache decided."""
    decisions = spec.pop("decisions", None)
    exact, split = spec.get("layout") == "exact", spec.get("ulysses", 1) > 1
    digest = sample.run(case, scene(case.size), **spec)
    own = sample.folder / "runs" / digest
    for index in range(1, case.num_images):
        shutil.copyfile(own / "image-0.png", own / f"image-{index}.png")
    run: Run = sample.runs[digest]
    ranks = 2 if split else 1
    sample.runs[digest] = replace(
        run,
        images=tuple(f"image-{index}.png" for index in range(case.num_images)),
        times=Times(0.1, (9.0, 0.2, 0.3, 0.1) if exact else (9.0, 0.4, 0.4, 0.4), 0.1, 2.0),
        counters={"exchanged_bytes": (6_000_000 if exact else 8_000_000) if split else 0},
        cache_decisions=(decisions or (SERVED,) * ranks) if spec.get("cache", "none") != "none" else (),
    )
    return digest


def write(name: str, sample: Any) -> Path:
    return load("reporters", name)().write(sample.report, sample.folder)


def flat(text: str) -> str:
    return " ".join(text.split())
