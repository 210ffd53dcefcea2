"""The words of every report format: outcomes, relations, figures, plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from harness.types import Comparison, Judgement, Outcome, Relation, Report, Row, Run, ShardPlan

NOT_JUDGED = "not judged"
NOTHING = "\N{EN DASH}"

OUTCOME_ORDER: tuple[Outcome | None, ...] = (
    Outcome.FAIL,
    Outcome.ERROR,
    Outcome.TIMEOUT,
    Outcome.NO_GOLDEN,
    None,
    Outcome.SKIP,
    Outcome.PASS,
)
"""Worst first; ``None`` is a row that was not judged."""

FAILING = frozenset({Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT, Outcome.NO_GOLDEN})

EXIT_WORDS = {
    0: "everything was judged and is well",
    1: "a verdict fails: a comparison, a missing golden, or an engine that raised or hung",
    2: "usage or configuration is wrong, or nothing was judged",
    3: "the machine let us down: out of memory, a full disk, a killed or stopped rank, a failed launch, a required row "
    "skipped",
    130: "interrupted; `run --resume` completes it",
}

COLUMNS: tuple[tuple[str, Relation], ...] = (
    ("exchange", Relation.EXCHANGE),
    ("control", Relation.CONTROL),
    ("layout", Relation.LAYOUT),
    ("pair", Relation.PAIR),
    ("golden", Relation.GOLDEN_CANDIDATE),
)
"""The five figures of a row, in the order in which they are read."""

IMAGE_COLUMNS: Mapping[str, Relation] = {"pair image": Relation.PAIR, "golden image": Relation.GOLDEN_CANDIDATE}
"""Figures of pictures beside those of latents: what a user sees."""

FIGURE_NAMES = (*(name for name, _ in COLUMNS), *IMAGE_COLUMNS)
"""Figures of latents, then those of pictures."""

LEGEND: tuple[tuple[str, str], ...] = (
    (
        "exchange",
        "split run against the replay: one device told to pad like the split run, nothing else. What "
        "splitting itself costs. It must cost nothing but rounding, and it decides the verdict.",
    ),
    ("control", "the same engine on one device against the baseline: what this engine's own code costs."),
    (
        "layout",
        "replay against the baseline: what surplus pads cost. A split may need more pad tokens than one device, "
        "the model attends to them, and the picture changes: correct, and often below 35 dB.",
    ),
    ("pair", "split run against the baseline: what a user sees, the sum of the three before."),
    ("golden", "split run against the picture a person approved earlier."),
)

FIGURE_WORDS = (
    "Figures are PSNR of the final latents in decibels: 100 dB and more is rounding, 60 dB invisible, below 35 dB "
    "plainly another picture. “exact” is equal to the last bit; “same run” means that both sides are one run, "
    "because nothing distinguishes them. “pair image” and “golden image” are PSNR and SSIM of the pictures, 8 bits a "
    "channel, of the worst of a batch."
)

CACHE_LEGEND = (
    "cache",
    "how many steps a cache served. What it decides at each step is compared before all else: on every rank alike, "
    "and as on one device. Where it differs, the other figures say nothing about the split.",
)
"""Beside the legend in reports that hold cached rows, whose baseline and replay are cached too."""

DECISIONS_KEY = "C: a step served from the cache; a dot: a step computed."

FAILED_RELATION_WORDS = {
    Relation.GOLDEN_BASELINE: "The baseline no longer draws the approved picture",
    Relation.CACHE: "The cache decides otherwise when the picture is split",
    Relation.CONTROL: "The engine differs from the baseline already on one device",
    Relation.PADDED_CONTROL: "The engine differs from the replay on one device with as many pads",
    Relation.EXCHANGE: "Splitting damages the picture",
    Relation.OWN_EXCHANGE: "The split differs from the engine on one device",
    Relation.LAYOUT: "Surplus pads cost more than was approved",
    Relation.PAIR: "The picture moved further from the single-device one than was approved",
    Relation.GOLDEN_CANDIDATE: "The split run no longer draws the approved picture",
}
"""What a failing relation means; the first that fails is the one to look at, as it explains the next."""

OUTCOME_WORDS = {
    Outcome.FAIL: "A comparison fails",
    Outcome.ERROR: "The run broke",
    Outcome.TIMEOUT: "The run did not end in time",
    Outcome.NO_GOLDEN: "There is no approved picture yet",
}


NEVER_SERVED = "The cache never served a step"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun, ``1 row`` or ``2 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def outcome_of(row: Row) -> Outcome | None:
    """Outcome of a row; ``None`` where it was not judged."""
    if row.verdict is not None:
        return row.verdict.outcome
    return Outcome.SKIP if row.skip is not None else None


def outcome_word(outcome: Outcome | None) -> str:
    """Word of the badge."""
    return NOT_JUDGED if outcome is None else outcome.value.replace("_", " ")


def sentence_of(row: Row) -> str:
    """Sentence that a person reads beside the badge."""
    if row.verdict is not None and row.verdict.sentence:
        return row.verdict.sentence
    return row.skip or "Recorded, not judged."


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """Failing rows first, otherwise in the order of the matrix."""
    return sorted(rows, key=lambda row: OUTCOME_ORDER.index(outcome_of(row)))


def failing(rows: Iterable[Row]) -> list[Row]:
    """Rows whose outcome is neither pass nor skip."""
    return [row for row in worst_first(rows) if outcome_of(row) in FAILING]


def counts(rows: Iterable[Row]) -> list[tuple[Outcome | None, int]]:
    """Count the outcomes, worst first."""
    found = Counter(outcome_of(row) for row in rows)
    return [(outcome, found[outcome]) for outcome in OUTCOME_ORDER if found[outcome]]


def axes_of(report: Report) -> list[str]:
    """Axis choices that occur among the rows, in the order auto, h, w, none."""
    asked = {row.variant.axis for row in report.rows}
    return [axis for axis in ("auto", "h", "w", "none") if axis in asked]


def run_of(report: Report, row: Row, role: str) -> Run | None:
    """Run that plays a role in a row, if it is in the report."""
    return report.runs.get(row.runs.get(role, ""))


def figure_text(comparison: Comparison | None) -> str:
    """One comparison in a few characters: PSNR of the latents, or why there is none."""
    if comparison is None:
        return NOTHING
    if comparison.problem is not None:
        return "no figure"
    if comparison.same_run:
        return "same run"
    if comparison.exact:
        return "exact"
    if comparison.exact_latents:
        return "exact latents"
    latents, image = comparison.figure("psnr", "latents"), comparison.figure("psnr", "image")
    if latents is not None and latents.value is not None:
        return f"{latents.value:.1f} dB"
    if image is not None and image.value is not None:
        return f"{image.value:.1f} dB (image)"
    return "no figure"


def latents_db(comparison: Comparison | None) -> float | None:
    """PSNR of the latents; ``None`` where both sides are equal or nothing was measured."""
    figure = comparison.figure("psnr", "latents") if comparison else None
    return figure.value if figure else None


def legend_of(report: Report) -> list[tuple[str, str]]:
    """Meaning of every column of figures that the report has."""
    cached = any(row.variant.cache != "none" for row in report.rows)
    return [*([CACHE_LEGEND] if cached else []), *LEGEND]


def judged(row: Row, relation: Relation) -> tuple[bool | None, list[Judgement]]:
    """All judgements of one relation, and whether they hold; ``None`` where it is only shown."""
    found = [j for j in row.verdict.judgements if j.relation == relation] if row.verdict else []
    flags = [judgement.ok for judgement in found if judgement.ok is not None]
    return (all(flags) if flags else None), found


def state_of(ok: bool | None) -> str:
    """Name of the style in which something judged is shown."""
    return {True: "ok", False: "bad", None: "shown"}[ok]


def number_text(value: float | None, unit: str) -> str:
    """Write a figure's value with as many digits as tell something."""
    if value is None:
        return NOTHING
    if unit == "dB":
        return f"{value:z.1f}"  # z: no minus before a zero
    if unit == "of 255":
        return f"{value:g}"
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"


def shards_text(plan: ShardPlan | None) -> str:
    """Tokens of each rank along the axis, ``23 | 22``."""
    return NOTHING if plan is None else " | ".join(str(count) for count in plan.shard_tokens)


def lengths_text(plan: ShardPlan | None) -> str:
    """Tokens that each rank brings to attention, pads included: ``1056 each``, or ``1035 | 1013``."""
    lengths = plan.sequence_lengths if plan else ()
    if len(set(lengths)) == 1 and len(lengths) > 1:
        return f"{lengths[0]} each"
    return " | ".join(map(str, lengths))


def pads_text(row: Row) -> str:
    """Pad tokens of the split run, of one device, and the surplus: ``87 / 23 (+64)``."""
    if row.plan is None:
        pads = row.pads
        return NOTHING if pads is None else f"{pads.total} / {pads.single} (+{pads.surplus})"
    single = NOTHING if row.choice is None else str(row.choice.single_pad_tokens)
    return f"{row.plan.pad_tokens} / {single} (+{row.plan.surplus_pad_tokens})"
