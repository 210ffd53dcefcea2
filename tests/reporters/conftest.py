"""A report as a run leaves it: good rows, a damaged one, a crash, a hang, a skip, hostile prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.planning.cut import choose_axis, cut
from harness.types import (
    Bound,
    Case,
    Comparison,
    Failure,
    FailureKind,
    Figure,
    Judgement,
    Matrix,
    Outcome,
    Relation,
    Report,
    Row,
    Run,
    RunSpec,
    Size,
    Times,
    Variant,
    Verdict,
)

NASTY = '<script>alert("x")</script> & "quotes" \'single\' ../../etc/passwd \U0001f98a | ` \\ \x00\x1b[31m'
LONG = "a fox under a paper moon, " * 400
TRACEBACK = 'Traceback (most recent call last):\n  File "engine.py", line 3, in draw\nRuntimeError: <boom> & \x0bmore'

AXES = {axis: Variant("spatial", ulysses=2, axis=axis) for axis in ("auto", "h", "w")}
UNSPLIT = Variant("fake", ulysses=2, axis="none")


FIGURED = [
    Relation.EXCHANGE,
    Relation.CONTROL,
    Relation.LAYOUT,
    Relation.PAIR,
    Relation.GOLDEN_BASELINE,
    Relation.GOLDEN_CANDIDATE,
]
LEVELS = Bound("max-abs", "image", 1.0, "of 255", "floor", 0.0, "at most")


def scene(size: Size, seed: int = 0) -> Any:
    """A sky over a ground with a ball: something in which damage can be seen."""
    y, x = np.mgrid[0 : size.height_px, 0 : size.width_px].astype(float)
    down, across = y / size.height_px, x / size.width_px
    picture = np.stack((90 + 100 * down, 140 + 40 * across, 220 - 120 * down), -1)
    radius = min(size.width_px, size.height_px) / 5
    ball = (x - size.width_px * 0.4) ** 2 + (y - size.height_px * 0.45) ** 2 < radius**2
    picture[ball] = (200, 70, 90)
    picture += np.random.default_rng(seed).normal(0, 3, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


@dataclass
class Sample:
    """A folder under construction and the report about it."""

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    golden_dirs: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> Report:
        cases = tuple(dict.fromkeys(row.case for row in self.rows))
        variants = tuple(dict.fromkeys(row.variant for row in self.rows))
        report = Report(
            name="sample-20260102-030405",
            matrix=Matrix(
                name="sample",
                path="matrices/sample.toml",
                golden_store="golden",
                cases=cases,
                variants=variants,
                pairs=tuple((row.case.name, row.variant.label) for row in self.rows),
            ),
            rows=tuple(self.rows),
            runs=self.runs,
            platform="cpu-float32",
            golden="required",
            complete=True,
            exit_code=1,
            started_at="2026-01-02T03:04:05+00:00",
            wall_s=83.25,
            environment={"python": "3.11.9", "torch": "2.13.0", "cpu": "2 cores"},
            golden_dirs=self.golden_dirs,
        )
        return replace(report, **self.changes)

    def run(self, case: Case, picture: Any = None, failure: Failure | None = None, **spec: Any) -> str:
        """Record a run, with its picture or its failure, and return its digest."""
        run_spec = RunSpec(case, spec.pop("engine", "diffusers"), "models/nano", "weights", "source", **spec)
        own = self.folder / "runs" / run_spec.digest
        own.mkdir(parents=True, exist_ok=True)
        images = ()
        if picture is not None:
            Image.fromarray(picture).save(own / "image-0.png")
            images = ("image-0.png",)
        outcome: Any = "ok"
        if failure:
            outcome = "timeout" if failure.kind is FailureKind.HUNG else "error"
        times = Times(0.11, (0.42, 0.4, 0.41, 0.4), 0.3, 2.04)
        self.runs[run_spec.digest] = Run(
            run_spec, outcome, images, "latents.safetensors", failure, times, 2.5, (2**29, 2**28)
        )
        return run_spec.digest

    def golden(self, case: Case, picture: Any, name: str = "image.png") -> None:
        place = self.folder.parent / "goldens" / case.key
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / name)
        self.golden_dirs[case.key] = str(place)


def figures(latents_db: float, image_db: float) -> tuple[Figure, ...]:
    return (
        Figure("psnr", "skimage, data_range=span of the reference", "latents", latents_db, "dB"),
        Figure("worst-tile", "PSNR of the worst tile", "latents", latents_db - 4, "dB", (32, 64, 64, 96)),
        Figure("max-abs", "maximum over elements", "latents", 4.2e-6, "abs", (32, 64, 48, 80)),
        Figure("psnr", "skimage, data_range=255", "image", image_db, "dB"),
        Figure("ssim", "Wang 2004, gaussian 1.5", "image", 0.98765, "1"),
        Figure("max-abs", "maximum over elements", "image", 3.0, "of 255", (32, 64, 48, 80)),
    )


def edge(relation: Relation, runs: dict[str, str], db: float | None) -> Comparison:
    """Compare two roles; ``None`` decibels means equal."""
    sides = {
        Relation.EXCHANGE: ("replay", "candidate"),
        Relation.CONTROL: ("baseline", "control"),
        Relation.LAYOUT: ("baseline", "replay"),
        Relation.PAIR: ("baseline", "candidate"),
    }
    first, second = (runs[role] for role in sides[relation]) if relation in sides else ("golden", runs["candidate"])
    if db is None:
        steps = () if first == second else (None,) * 4
        return Comparison(relation, first, second, first == second, None, True, True, steps_db=steps)
    steps = (None, db + 20, db + 3, db)
    return Comparison(relation, first, second, False, None, False, False, figures(db, min(db, 58.0)), steps_db=steps)


def verdict(outcome: Outcome, sentence: str, exchange: float | None, cause: str | None = None) -> Verdict:
    ok = outcome is not Outcome.FAIL
    bound = Bound("psnr", "latents", 100.0, "dB", "floor")
    said = "exact" if exchange is None else f"{exchange:.1f} dB"
    judgements = (
        Judgement(Relation.EXCHANGE, ok, f"{said} of latents, asked for {bound}", bound, exchange),
        Judgement(Relation.EXCHANGE, True, f"1 of 255 of image, asked for {LEVELS}", LEVELS, 1.0),
        Judgement(Relation.PAIR, None, "shown, not judged: nothing is approved for this variant"),
    )
    return Verdict(outcome, sentence, cause, judgements=judgements)


def add_drawn_rows(sample: Sample, case: Case, damaged: str | None = None) -> None:
    """Rows for auto, h and w; auto shares the run of the axis it chose, one axis may be damaged."""
    original = scene(case.size)
    baseline = sample.run(case, original)
    control = sample.run(case, original, engine="spatial")
    sample.golden(case, original)
    for axis, variant in AXES.items():
        choice = choose_axis(case.size, 2, variant.axis)
        plan = choice.chosen
        surplus = plan.surplus_pad_tokens
        padded = np.clip(original.astype(int) + (surplus > 0) * np.arange(3), 0, 255).astype(np.uint8)
        replay = sample.run(case, padded, image_pad_tokens=plan.pad_tokens) if surplus else baseline
        bad = axis == damaged
        drawn = np.roll(padded, case.size.height_px // 2, 0) if bad else padded.copy()
        drawn[0, 0] ^= 1
        fault = "swapped-ranks" if bad else None
        candidate = sample.run(case, drawn, engine="spatial", ulysses=2, plan=plan, fault=fault)
        runs = {"baseline": baseline, "replay": replay, "control": control, "candidate": candidate}
        split, pads = (21.1 if bad else 143.2), (31.4 if surplus else None)
        seen = 20.7 if bad else (pads or split)
        levels = dict(zip(FIGURED, (split, None, pads, seen, None, 44.4), strict=True))
        sample.rows.append(
            Row(
                case,
                variant,
                choice,
                plan,
                runs=runs,
                shares_with=AXES[plan.axis].label if axis == "auto" and damaged != plan.axis else None,
                comparisons=tuple(edge(r, runs, db) for r, db in levels.items() if r is not Relation.GOLDEN_BASELINE),
                verdict=verdict(
                    Outcome.FAIL if bad else Outcome.PASS,
                    "exchange is 21.1 dB, 100.0 dB were asked for: the split run draws another picture"
                    if bad
                    else "Splitting costs nothing; the pads account for the rest.",
                    split,
                    "ranks swapped in the gather" if bad else None,
                ),
            )
        )


def add_broken_rows(sample: Sample) -> None:
    """A crash, a hang, a missing golden, a skip and a row that nobody judged."""
    size = Size(96, 64)
    case = Case("96x64-nasty", "nano", size, (NASTY, LONG))
    baseline = sample.run(case, scene(size))
    stacks = "Thread 0x1 (most recent call first):\n  all_to_all_single"
    failures = (
        (AXES["h"], Outcome.ERROR, Failure(FailureKind.RAISED, "RuntimeError: <boom>", 1, TRACEBACK)),
        (AXES["w"], Outcome.TIMEOUT, Failure(FailureKind.HUNG, "no step for 120 s", 0, stacks)),
    )
    for variant, outcome, failure in failures:
        candidate = sample.run(case, failure=failure, engine="spatial", ulysses=2, plan=cut(size, 2, variant.axis))
        runs = {"baseline": baseline, "candidate": candidate}
        plan = cut(size, 2, variant.axis)
        said = Verdict(outcome, f"spatial: {failure.message}")
        sample.rows.append(Row(case, variant, choose_axis(size, 2, variant.axis), plan, runs=runs, verdict=said))
    fresh = Case("112x64-new", "nano", Size(112, 64), ("a new picture",))
    runs = {"baseline": sample.run(fresh, scene(fresh.size)), "candidate": sample.run(fresh, engine="fake")}
    said = Verdict(Outcome.NO_GOLDEN, "No golden for 112x64-new; a proposal is in this run.")
    sample.rows.append(Row(fresh, UNSPLIT, runs=runs, verdict=said))
    sample.rows.append(Row(fresh, AXES["h"], skip="3 ranks do not divide 4 heads"))
    sample.rows.append(Row(fresh, AXES["w"]))


@pytest.fixture
def new_sample(tmp_path: Path) -> Callable[[], Sample]:
    """Return a maker of empty samples."""

    def make() -> Sample:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return Sample(folder)

    return make


@pytest.fixture
def good(new_sample: Callable[[], Sample]) -> Sample:
    """Three rows that pass: 144x144 cut into 5 and 4 tokens, with surplus pads."""
    sample = new_sample()
    sample.changes["exit_code"] = 0
    add_drawn_rows(sample, Case("144x144", "nano", Size(144, 144), ("a ball",)))
    return sample


@pytest.fixture
def mixed(good: Sample) -> Sample:
    """Everything that may happen in one run."""
    good.changes["exit_code"] = 1
    add_drawn_rows(good, Case("128x128", "nano", Size(128, 128), ("a red ball under a blue sky",)), damaged="w")
    add_broken_rows(good)
    return good
