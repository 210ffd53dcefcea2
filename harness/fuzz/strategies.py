"""Hypothesis strategies for matrix files of one case, or one short sequence, under one variant.

Simple things stand first in every choice, since hypothesis shrinks towards them: few tokens, short
prompts, no guidance, two ranks, no ring, no cache, one request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w
from hypothesis import strategies as st

from harness.fuzz.space import Space
from harness.plugins import Engine
from harness.types import PIXELS_PER_TOKEN, SCHEMA

_VOCABULARY = (
    "ball cube ring cone tower boat bridge red blue green yellow purple white grey tiles grass water sand "
    "day night evening morning left right above below near far small large"
)
WORDS = _VOCABULARY.split()
MAX_WORDS = 60
"""Two buckets of 32 caption tokens and a little more."""

STEPS, CACHED_STEPS = 2, 6
CACHE_MASKS = ("110101", "101010", "110100")
"""A mask decides, not a threshold: near one, a correct split may decide otherwise."""


def examples(space: Space, engine: type[Engine]) -> st.SearchStrategy[str]:
    """Matrix files, as text."""
    return st.builds(_text, st.just(space), _cases(space), _variants(space, engine))


def _text(space: Space, cases: Sequence[Mapping[str, Any]], variant: Mapping[str, Any]) -> str:
    cached = "cache" in variant
    return tomli_w.dumps(
        {
            "schema": SCHEMA,
            "model": space.model,
            "steps": CACHED_STEPS if cached else STEPS,
            "golden": "off",
            "timeout_s": space.timeout_s,
            "metrics": ["psnr"],
            "case": list(cases),
            "variant": [variant],
        }
    )


@st.composite
def _cases(draw: st.DrawFn, space: Space) -> list[dict[str, Any]]:
    """One case; sometimes two or three requests to one engine, of which the last may be the first again."""
    first = draw(_case(space))
    if not space.sequences or draw(st.integers(0, space.sequences - 1)) < space.sequences - 1:
        return [first]
    others = draw(st.lists(_case(space), min_size=1, max_size=2))
    requests = [first, *others, *([first] if draw(st.booleans()) else [])]
    return [{"sequence": "requests", **request} for request in requests]


@st.composite
def _case(draw: st.DrawFn, space: Space) -> dict[str, Any]:
    rows = draw(st.integers(1, min(space.max_side_tokens, space.max_tokens)))
    columns = draw(st.integers(1, min(space.max_side_tokens, space.max_tokens // rows)))
    prompts = draw(st.lists(_prompts(), min_size=1, max_size=3))
    case: dict[str, Any] = {
        "size": f"{columns * PIXELS_PER_TOKEN}x{rows * PIXELS_PER_TOKEN}",
        "prompt": prompts[0] if len(prompts) == 1 else prompts,
    }
    if draw(st.sampled_from((False, False, True))):
        case["guidance_scale"] = 4.0
        case["negative_prompt"] = draw(st.just("") | _prompts())
    if draw(st.sampled_from((False, False, False, True))):
        case["num_images_per_prompt"] = 2
    return case


def _prompts() -> st.SearchStrategy[str]:
    """Prompts of any length; which words they have matters little."""
    return st.builds(
        lambda length, start: " ".join(WORDS[(start + place) % len(WORDS)] for place in range(length)),
        st.integers(1, MAX_WORDS),
        st.integers(0, len(WORDS) - 1),
    )


@st.composite
def _variants(draw: st.DrawFn, space: Space, engine: type[Engine]) -> dict[str, Any]:
    ulysses, ring = draw(st.sampled_from(_degrees(space.max_ranks)))
    variant: dict[str, Any] = {"engine": space.engine, "ulysses": ulysses}
    variant |= {"ring": ring} if ring > 1 else {}
    variant["axis"] = draw(st.sampled_from(engine.axes))
    if "exact" in engine.layouts and draw(st.sampled_from((False, False, True))):
        variant["layout"] = "exact"
    options: dict[str, Any] = {name: draw(st.sampled_from(values)) for name, values in space.options}
    if "cache_mask" in engine.options and draw(st.sampled_from((False, False, False, False, True))):
        variant["cache"] = "cache-dit"
        options["cache_mask"] = draw(st.sampled_from(CACHE_MASKS))
    variant |= {"options": options} if options else {}
    variant |= {"environment": space.environment} if space.environment else {}
    return variant | ({"fault": space.fault} if space.fault else {})


def _degrees(max_ranks: int) -> list[tuple[int, int]]:
    """Ulysses and ring degrees of at least two ranks together, the simplest first; some divide no heads."""
    numbers = range(1, max_ranks + 1)
    pairs = [(ulysses, ring) for ulysses in numbers for ring in numbers if 2 <= ulysses * ring <= max_ranks]
    return sorted(pairs, key=lambda pair: (pair[1] > 1, pair[0] * pair[1], pair[1]))
