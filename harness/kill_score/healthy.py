"""Healthy rows at random: sizes, prompts, seeds, steps, guidance, degrees, axes, layouts, and neutral options.

None of them may fail. Rows of one case share its baseline and its draws, so that four rows cost three runs each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from harness.types import Axis, Case, Device, DType, Layout, Matrix, Size, Variant

ROWS_PER_CASE = 4
SIDES_PX = {"nano": (144, 272), "fake": (144, 272), "": (512, 1280)}
"""Sides of pictures by the model's family; ``""`` for models of full size."""
ENGINES = {"fake": "fake"}
"""Engine by model, where it is not ``spatial``."""
STEPS = (1, 2, 2, 2, 3, 4, 4)
CACHE_MASK = "11101010"
"""Steps that a cache computes, where a case has one; rows of as many steps have no other options."""
PROMPTS = (
    "",
    "a ball",
    "a red ball left of a blue cube, tiles, day",
    "a purple ring right and a yellow ball left on tiles at day",
    "a green cone in front of a white ring, a blue ball behind it, tiles, evening light, long shadows",
    "größer, 颜色, ¿dónde?, 1234567890 #%&",
    "a tower left, a small boat right, calm water, a bridge between them, clouds, morning, snow on the mountain, "
    "an old house near the lake, two birds above, a fox and an owl in the garden, a photograph, bright, large",
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"keys": "reversed"},
    {"keys": "twice"},
    {"feed_forward": "float32"},
    {"exchange": "fused"},
    {"exchange": "separate"},
)
"""Options of ``spatial`` that leave the mathematics as it is; most rows have none."""


@dataclass(frozen=True)
class Setting:
    """Settings of the rows that are drawn."""

    model: str = "nano"
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    device: Device = "cpu"
    max_ranks: int = 3
    sizes: tuple[Size, ...] = ()
    """Sizes to choose from; any by default."""
    seed: int = 0


def healthy_rows(number: int, setting: Setting) -> Matrix:
    """Draw a matrix of healthy rows; the same for the same arguments, and a prefix of any longer one.

    Parameters
    ----------
    number
        Rows; a row is drawn again with another seed of the noise.
    setting
        The model, and ranges.
    """
    rng = random.Random(f"{setting.seed} {setting.model} {setting.device}")
    rows = list(islice(_rows(rng, setting), number))
    cases = {case.name: case for case, _ in rows}
    variants = {variant.label: variant for _, variant in rows}
    return Matrix(
        name="benign",
        path=f"sp-harness benign --rows {number}",
        golden_store="",
        cases=tuple(cases.values()),
        variants=tuple(variants.values()),
        pairs=tuple((case.name, variant.label) for case, variant in rows),
        metrics=("psnr", "max-abs", "worst-tile"),
    )


def _rows(rng: random.Random, setting: Setting) -> Iterator[tuple[Case, Variant]]:
    number = 0
    while True:
        case = _case(rng, setting, number)
        number += 1
        variants: dict[str, Variant] = {}
        while len(variants) < ROWS_PER_CASE:
            variant = _variant(rng, setting, case)
            variants[variant.label] = variant
        for variant in variants.values():
            yield case, variant


def _case(rng: random.Random, setting: Setting, number: int) -> Case:
    guided = rng.random() < 0.3
    batch = not guided and rng.random() < 0.2
    cached = rng.random() < 0.15
    prompts = tuple(rng.sample(PROMPTS, 2 if batch else 1))
    return Case(
        name=f"healthy-{number}",
        model=setting.model,
        size=_size(rng, setting),
        prompts=prompts,
        negative_prompts=(rng.choice(PROMPTS),) if guided else (),
        seed=rng.randrange(2**32),
        steps=len(CACHE_MASK) if cached else rng.choice(STEPS),
        guidance_scale=rng.choice((1.5, 3.0, 4.0, 5.0)) if guided else 0.0,
        dtype=setting.dtypes[number % len(setting.dtypes)],
        device=setting.device,
        golden="off",
    )


def _size(rng: random.Random, setting: Setting) -> Size:
    if setting.sizes:
        return rng.choice(setting.sizes)
    family = setting.model.split("-")[0]
    low, high = SIDES_PX.get(family, SIDES_PX[""])
    return Size(16 * rng.randint(low // 16, high // 16), 16 * rng.randint(low // 16, high // 16))


def _variant(rng: random.Random, setting: Setting, case: Case) -> Variant:
    degrees = [(2, 1), (2, 1), (1, 2), (3, 1)] if setting.max_ranks >= 3 else [(2, 1), (2, 1), (2, 1), (1, 2)]
    ulysses, ring = rng.choice(degrees)
    axes: Sequence[Axis] = ("h", "w")
    layouts: Sequence[Layout] = ("aligned", "exact")
    engine = ENGINES.get(setting.model, "spatial")
    variant = Variant(
        engine, ulysses=ulysses, ring=ring, axis=rng.choice(axes), layout=rng.choice(layouts), required=False
    )
    if engine != "spatial":
        return variant
    if case.steps == len(CACHE_MASK):
        return replace(variant, cache="cache-dit", options={"cache_mask": CACHE_MASK})
    return replace(variant, options=rng.choice(OPTIONS))
