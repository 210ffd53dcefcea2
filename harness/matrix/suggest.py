"""Suggestions: the smallest additions to a matrix that meet its missing classes, as TOML ready to paste.

For classes of shapes a small search finds the size with the fewest tokens at the degrees of the matrix; every other
class is tried on the cases of the matrix, the smallest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import tomli_w

from harness import models, plugins
from harness.matrix.coverage import SHAPE_CLASSES, met_by, sight_of
from harness.matrix.loader import expand
from harness.matrix.schema import MatrixTables
from harness.models.captions import CountTokens, counter
from harness.planning.graph import build
from harness.types import PIXELS_PER_TOKEN, Axis, Case, DType, Matrix, ModelSpec, Size, Variant

MAX_SIDE_TOKENS = 40
"""The search ends at pictures of 640 pixels a side: every class has a smaller one at up to six ranks."""

WORDS = ("a", "red", "ball", "left", "of", "a", "blue", "cube", "on", "grey", "tiles", "at", "day")
"""Words that prompts are lengthened with."""

CACHE_STEPS, CACHE_MASK = 8, "11101001"
"""Steps of a cached case, and which of them are computed: enough to be served, and nothing left to chance."""


@dataclass(frozen=True)
class Addition:
    """Case (twice the same, where a second request is needed) and variant to add."""

    cases: tuple[Case, ...]
    variant: Variant
    meets: tuple[str, ...]


def additions(matrix: Matrix, missing: Sequence[str]) -> list[Addition]:
    """Find additions until no class is missing that can be met.

    Parameters
    ----------
    matrix
        Source of models, prompts, sizes, engines and degrees.
    missing
        Names of classes.
    """
    model = models.resolve(matrix.cases[0].model, matrix.cases[0].revision)
    found: list[Addition] = []
    lacking = list(missing)
    while lacking:
        addition = _smallest(lacking[0], matrix, model)
        lacking.pop(0)
        if addition:
            found.append(addition)
            lacking = [name for name in lacking if name not in addition.meets]
    return _without_idle(found, missing)


def _without_idle(found: list[Addition], missing: Sequence[str]) -> list[Addition]:
    """Drop additions whose classes the others meet too, as a later one often does."""
    kept = list(found)
    for addition in found:
        others = {name for other in kept if other is not addition for name in other.meets}
        if {*addition.meets} & {*missing} <= others:
            kept.remove(addition)
    return kept


def _smallest(name: str, matrix: Matrix, model: ModelSpec) -> Addition | None:
    """Return the smallest draft that meets the class."""
    count = counter(model)
    for cases, variant in _drafts(name, matrix, model, count):
        pairs = tuple((case.name, variant.label) for case in cases)
        graph = build(replace(matrix, cases=cases, variants=(variant,), pairs=pairs), lambda case: model)
        row = graph.rows[-1]
        if row.skip is None:
            meets = met_by(sight_of(row, graph, count))
            if name in meets:
                return Addition(cases, variant, meets)
    return None


def _drafts(
    name: str, matrix: Matrix, model: ModelSpec, count: CountTokens
) -> Iterator[tuple[tuple[Case, ...], Variant]]:
    base = replace(
        matrix.cases[0], name=f"cover-{_slug(name.removeprefix('second request: '))}", golden="off", sequence=None
    )
    variants = _variants(name, matrix, model)
    if name in SHAPE_CLASSES or (name.startswith("flat cut") and "masks" not in name):
        plain = replace(base, prompts=base.prompts[:1], negative_prompts=(), guidance_scale=0, num_images_per_prompt=1)
        for size in _sizes():
            yield from (((replace(plain, size=size),), variant) for variant in variants)
        return
    at_hand = sorted((case for case in matrix.cases if not case.sequence), key=_work) or [base]
    for case in at_hand:
        for variant in variants:
            changed = _changed(name, case, count)
            named = changed if changed == case else replace(changed, name=base.name, golden="off")
            if not name.startswith("second request"):
                yield (named,), variant
            else:
                pair = enumerate(_requests(name, named, count), 1)
                yield (
                    tuple(
                        replace(request, name=f"{base.name}-{n}-{case.size}", sequence=base.name, golden="off")
                        for n, request in pair
                    ),
                    variant,
                )


def _requests(name: str, case: Case, count: CountTokens) -> tuple[Case, Case]:
    """Two requests of which the second meets a class of second requests."""
    if name.endswith("captions exchanged"):
        prompts = _prompts("captions of a batch: different buckets", case, count)
        batch = replace(case, prompts=prompts, negative_prompts=(), guidance_scale=0.0)
        return batch, replace(batch, prompts=prompts[::-1])
    if name.endswith("other negative prompt"):
        guided = _changed("guidance", case, count)
        return guided, replace(guided, negative_prompts=("dark",) * len(guided.prompts))
    if name.endswith("other bucket"):
        short, long = _prompts("captions of a batch: different buckets", case, count)
        plain = replace(case, negative_prompts=(), guidance_scale=0.0)
        return replace(plain, prompts=(short,)), replace(plain, prompts=(long,))
    if name.endswith("other step count"):
        return case, replace(case, steps=case.steps + 1)
    return case, replace(case, seed=case.seed + 1) if name.endswith("equal shape") else case


def _changed(name: str, case: Case, count: CountTokens) -> Case:
    """Return a case with the least change by which it may meet a class."""
    if name == "no guidance":
        return replace(case, guidance_scale=0.0, negative_prompts=())
    if name.startswith("dtype: "):
        return replace(case, dtype=cast(DType, name.removeprefix("dtype: ")))
    if name.startswith("steps: "):
        return replace(case, steps=1 if name == "steps: 1" else 2)
    if name == "guidance":
        return replace(case, guidance_scale=4.0, negative_prompts=("",) * len(case.prompts))
    if name == "several images":
        return replace(case, num_images_per_prompt=2)
    if name == "cache":
        return replace(case, steps=CACHE_STEPS)
    if name == "batch" or name.startswith(("caption", "flat cut")):
        prompts = _prompts(name, case, count)
        return replace(case, prompts=prompts, negative_prompts=(), guidance_scale=0.0)
    return case


def _prompts(name: str, case: Case, count: CountTokens) -> tuple[str, ...]:
    """Return prompts of the lengths that a class needs: the case's own first, then longer ones."""
    first = case.prompts[0].split()
    stock = [" ".join([*first, *(WORDS[n % len(WORDS)] for n in range(extra))]) for extra in range(70)]
    groups = [(prompt,) for prompt in stock] if name.startswith("caption:") else list(combinations(stock, 2))
    for prompts in groups:
        lengths = [count(prompt) for prompt in prompts]
        equal = len({-(-length // 32) for length in lengths}) == 1
        wanted = {
            "caption: at a multiple of 32": lengths[0] % 32 == 0,
            "caption: off a multiple of 32": lengths[0] % 32 > 0,
            "captions of a batch: different buckets": not equal,
            "flat cut: masks over uneven parts": not equal,
        }
        if wanted.get(name, equal):
            return prompts
    return case.prompts


def _variants(name: str, matrix: Matrix, model: ModelSpec) -> list[Variant]:
    """List the variants to try for a class, those of the fewest ranks first."""
    wanted = {variant.engine: plugins.load("engines", variant.engine) for variant in matrix.variants}
    flat = [each for each, engine in wanted.items() if engine.axes == ("none",)]
    cutting = [each for each, engine in wanted.items() if engine.axes != ("none",)]
    fitting = flat if name.startswith("flat cut") else cutting or flat
    found = [_variants_of(name, named, matrix, model) for named in fitting or ["spatial"]]
    return sorted((each for variants in found for each in variants), key=lambda variant: variant.degree)


def _variants_of(name: str, named: str, matrix: Matrix, model: ModelSpec) -> list[Variant]:
    engine = plugins.load("engines", named)
    axis: Axis = "auto" if "auto" in engine.axes else engine.axes[0]
    degrees = sorted(
        {(v.ulysses, v.ring) for v in matrix.variants if v.degree > 1 and model.num_heads % v.ulysses == 0},
        key=lambda degree: (degree[0] * degree[1], degree[1]),
    ) or [(next((d for d in (2, 3, 5) if model.num_heads % d == 0), 1), 1)]
    if name.startswith("flat cut"):
        degrees = sorted({*degrees, (2, 1), (3, 1)})
    plain = [Variant(named, ulysses, ring, axis) for ulysses, ring in degrees]
    if name.startswith("ranks: "):
        ranks = int(name.removeprefix("ranks: "))
        return [Variant(named, ranks, 1, axis), Variant(named, 1, ranks, axis)]
    if name == "ring":
        return [Variant(named, 1, 2, axis)]
    if name == "ring x Ulysses":
        return [Variant(named, ulysses, 2, axis) for ulysses in (2, 3, 5) if model.num_heads % ulysses == 0]
    if name == "layout: exact":
        return [replace(variant, layout="exact") for variant in plain]
    if name.startswith("attention"):
        return [replace(each, options={"attention": "_native_math"}) for each in plain if "attention" in engine.options]
    if name == "graph":
        return [replace(each, options={"graph": True}) for each in plain if "graph" in engine.options]
    if name == "cache":
        masked = {"cache_mask": CACHE_MASK}
        return [
            replace(variant, cache="cache-dit", options=masked) for variant in plain if {*masked} <= {*engine.options}
        ]
    return plain


def _sizes() -> list[Size]:
    sides = range(1, MAX_SIDE_TOKENS + 1)
    sizes = [Size(width * PIXELS_PER_TOKEN, height * PIXELS_PER_TOKEN) for width in sides for height in sides]
    return sorted(sizes, key=lambda size: (size.tokens, size.tokens_h + size.tokens_w, size.width_px))


def _work(case: Case) -> tuple[int, int, str]:
    return case.size.tokens * case.num_images, case.steps, case.name


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


# ---------------------------------------------------------------- as TOML


def as_toml(found: Sequence[Addition], matrix: Matrix, tables: MatrixTables) -> str:
    """Format additions for the end of a matrix file.

    Cases that the file has already, and variants that apply to every case of it, are not repeated.

    Parameters
    ----------
    found
        The additions.
    matrix, tables
        The file as read: its rows, and the keys at its top.
    """
    known = {_identity(case): case.name for case in matrix.cases if not case.sequence}
    everywhere = [variant for entry in tables.variant if entry.cases is None for variant in expand(entry)]
    cases: list[Mapping[str, Any]] = []
    met: dict[str, tuple[Variant, list[str]]] = {}
    for addition in found:
        first = addition.cases[0]
        if first.sequence:
            cases += [_case_table(case, tables) for case in addition.cases]
            patterns = [f"{first.sequence}-*"]
        else:
            if _identity(first) not in known:
                known[_identity(first)] = first.name
                cases.append(_case_table(first, tables))
            patterns = [known[_identity(first)]]
        if addition.variant.label not in {variant.label for variant in everywhere}:
            names = met.setdefault(addition.variant.label, (addition.variant, []))[1]
            names += [pattern for pattern in patterns if pattern not in names]
    required = {variant.label: variant.required for variant in matrix.variants}
    variants = [
        _variant_table(replace(variant, required=required.get(label, True)), names)
        for label, (variant, names) in met.items()
    ]
    return tomli_w.dumps({"case": cases, "variant": variants})


def _identity(case: Case) -> str:
    return repr(case.identity())


def _case_table(case: Case, tables: MatrixTables) -> dict[str, Any]:
    negative = list(case.negative_prompts)
    table: dict[str, Any] = {
        **({"sequence": case.sequence} if case.sequence else {"name": case.name}),
        "size": str(case.size),
        "prompt": case.prompts[0] if len(case.prompts) == 1 else list(case.prompts),
    }
    if case.guidance_scale:
        table |= {"guidance_scale": case.guidance_scale}
        table |= {"negative_prompt": negative if len(set(negative)) > 1 else negative[0]} if any(negative) else {}
    if case.num_images_per_prompt > 1:
        table["num_images_per_prompt"] = case.num_images_per_prompt
    for key in ("model", "revision", "device", "dtype", "steps", "seed", "golden", "timeout_s"):
        if getattr(case, key) != getattr(tables, key):
            table[key] = getattr(case, key)
    return table


def _variant_table(variant: Variant, names: Sequence[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"engine": variant.engine}
    plain = Variant(variant.engine)
    for key in ("ulysses", "ring", "axis", "layout", "cache", "required"):
        if getattr(variant, key) != getattr(plain, key):
            table[key] = getattr(variant, key)
    return table | ({"options": dict(variant.options)} if variant.options else {}) | {"cases": list(names)}
