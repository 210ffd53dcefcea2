"""Run graph: rows of a matrix, and the distinct runs that serve them.

Every row names up to four runs (baseline, replay, control, candidate) by digest. Equal digests are one
run: a baseline shared by several variants, two replays with as many pads, ``auto`` and the axis it
chose.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from harness import plugins
from harness.errors import ConfigError, did_you_mean
from harness.planning.cut import choose_axis, cut, pads_of
from harness.planning.environment import interpreter_of, missing
from harness.planning.fingerprint import source_of
from harness.plugins import Engine
from harness.types import (
    PIXELS_PER_TOKEN,
    AxisChoice,
    Case,
    DType,
    Matrix,
    ModelSpec,
    OwnArithmetic,
    Pads,
    Row,
    RunSpec,
    TokenOrder,
    Variant,
    digest_of,
)

DRAWS: Mapping[str, TokenOrder] = {
    "reordered": "reversed",
    "reordered-2": "columns",
    "reordered-3": "shuffled-1",
    "reordered-4": "shuffled-2",
}
"""Draws of the noise floor: role to the order of the baseline's image tokens."""

ROLES = ("baseline", "replay", "control", "padded", "candidate", *DRAWS, "repeat")


@dataclass(frozen=True)
class Graph:
    """Rows, and the runs they need by digest, in the order of their first use."""

    rows: tuple[Row, ...]
    specs: Mapping[str, RunSpec]

    def missing(self, settled: Container[str], rows: Iterable[Row] | None = None) -> list[RunSpec]:
        """List the runs that rows (all by default) need beyond the settled ones.

        A sequence is computed whole or not at all: its later requests depend on the earlier ones.
        """
        wanted = {digest for row in (self.rows if rows is None else rows) for digest in row.runs.values()}
        lacking = [spec for digest, spec in self.specs.items() if digest in wanted and digest not in settled]
        sequences = {spec.sequence for spec in lacking if spec.sequence}
        return [spec for spec in self.specs.values() if spec in lacking or spec.sequence in sequences]


def case_groups(specs: Iterable[RunSpec]) -> list[list[RunSpec]]:
    """Divide runs so that nothing is compared across groups, and a sequence stays whole.

    A group holds all runs of a case, of its twins under other names, and of the cases that share a sequence
    with it. Groups and the runs in them keep the order given.
    """
    ordered = list(specs)
    groups: list[tuple[set[str], list[int]]] = []
    for position, spec in enumerate(ordered):
        keys = {digest_of(spec.case.identity()), *([f"sequence {spec.sequence}"] if spec.sequence else [])}
        members = [position]
        apart = []
        for group in groups:
            if group[0] & keys:
                keys |= group[0]
                members += group[1]
            else:
                apart.append(group)
        groups = [*apart, (keys, members)]
    return [[ordered[position] for position in members] for members in sorted(sorted(m) for _, m in groups)]


def cost_of(spec: RunSpec) -> float:
    """Estimate a run's cost in arbitrary units: linear in tokens, attention quadratic, one decode."""
    tokens = spec.case.size.tokens
    return spec.case.num_images * (spec.case.steps * tokens * (1 + tokens / 4000) + tokens) / spec.world_size


def build(matrix: Matrix, resolve: Callable[[Case], ModelSpec]) -> Graph:
    """Plan every row of a matrix.

    Parameters
    ----------
    matrix
        The checked matrix.
    resolve
        Returns the checkpoint of a case.

    Raises
    ------
    ConfigError
        If a variant asks its engine for an axis, option or fault that it does not have.
    """
    cases = {case.name: case for case in matrix.cases}
    variants = {variant.label: variant for variant in matrix.variants}
    for variant in matrix.variants:
        _check(matrix.path, variant, plugins.load("engines", variant.engine))
    rows: list[Row] = []
    specs: dict[str, RunSpec] = {}
    drawn_by: dict[str, str] = {}
    last: dict[str, str] = {}
    for case_name, label in matrix.pairs:
        case, variant = cases[case_name], variants[label]
        row, runs = _row(case, variant, resolve(case), last, matrix.interpreters)
        candidate = row.runs.get("candidate")
        if candidate in drawn_by:
            row = replace(row, shares_with=drawn_by[candidate])
        elif candidate:
            drawn_by[candidate] = label
        rows.append(row)
        for spec in runs.values():
            specs.setdefault(spec.digest, spec)
    return _with_repeats(Graph(tuple(rows), specs))


def draws_of(dtype: DType) -> tuple[str, ...]:
    """List the draws that measure the noise floor: one in float32, where it scatters little, else all of them."""
    roles = tuple(DRAWS)
    return roles[:1] if dtype == "float32" else roles


def _with_repeats(graph: Graph) -> Graph:
    """Add a second run of one baseline of each model, dtype and device: the cheapest without a cache."""
    cheapest: dict[tuple[str, str, str], RunSpec] = {}
    for row in graph.rows:
        if row.runs and row.variant.cache == "none":
            spec = graph.specs[row.runs["baseline"]]
            known = cheapest.setdefault((spec.weights, spec.case.dtype, spec.case.device), spec)
            if _work(spec) < _work(known):
                cheapest[spec.weights, spec.case.dtype, spec.case.device] = spec
    repeats = {spec.digest: replace(spec, repeat=1) for spec in cheapest.values()}
    rows = tuple(
        replace(row, runs={**row.runs, "repeat": repeats[row.runs["baseline"]].digest})
        if row.runs.get("baseline") in repeats
        else row
        for row in graph.rows
    )
    return Graph(rows, {**graph.specs, **{spec.digest: spec for spec in repeats.values()}})


def _work(spec: RunSpec) -> int:
    return spec.case.size.tokens * spec.case.steps * spec.case.num_images


def _check(path: str, variant: Variant, engine: type[Engine]) -> None:
    where = f"{path}: variant {variant.label!r}"
    if variant.axis not in engine.axes and variant.axis != "auto":
        raise ConfigError(f"{where}: {engine.name} has no axis {variant.axis!r}; known: {', '.join(engine.axes)}")
    if variant.fault and variant.fault not in (faults := plugins.ask(engine, "faults")):
        hint = did_you_mean(variant.fault, faults)
        raise ConfigError(f"{where}: {engine.name} has no fault {variant.fault!r}; {hint}")
    for key, known in (("layout", engine.layouts), ("cache", engine.caches)):
        if getattr(variant, key) not in known:
            have = f"{engine.name} has no {key} {getattr(variant, key)!r}"
            raise ConfigError(f"{where}: {have}; known: {', '.join(known)}")
    for name, value in variant.options.items():
        if name not in engine.options:
            raise ConfigError(f"{where}: {engine.name} has no option {name!r}; {did_you_mean(name, engine.options)}")
        if (problem := engine.options[name].problem(value)) is not None:
            raise ConfigError(f"{where}: {engine.name} takes no {name} = {value!r:.80}; {problem}")
        if idle := [other for other in engine.options[name].excludes if other in variant.options]:
            raise ConfigError(f"{where}: {idle[0]} has no effect beside {name}; remove one of them")
        if name.startswith("cache_") and variant.cache == "none":
            caches = " or ".join(f'cache = "{known}"' for known in engine.caches if known != "none")
            raise ConfigError(f"{where}: {name} has no effect without a cache; add {caches}, or remove it")


def _row(
    case: Case, variant: Variant, model: ModelSpec, last: dict[str, str], interpreters: Mapping[str, str]
) -> tuple[Row, dict[str, RunSpec]]:
    """Plan one row; ``last`` holds the digest of each sequence's latest request."""
    engine = plugins.load("engines", variant.engine)
    choice = _choice(case, variant, engine, model)
    plan = choice.chosen if choice else None
    skip = _beyond_positions(case, model) or plugins.ask(engine, "limits", case, variant, model)
    if skip is None and choice is not None and plan is None:
        skip = f"no cut: {choice.rule}"
    skip = skip or missing(variant, case.device, engine, interpreters)
    pads = None if plan else _declared_pads(case, variant, engine, model)
    if skip is None and pads and pads.surplus < 0:
        skip = f"{engine.name} adds {pads.total} image pads, one device {pads.single}: a replay cannot leave pads out"
    own = OwnArithmetic(engine.control_db.get(case.dtype)) if engine.own_arithmetic else None
    row = Row(case, variant, choice, plan, pads, own, skip)
    if skip is not None:
        return row, {}
    runs = _runs(row, model, interpreter_of(variant, interpreters))
    if case.sequence:
        sequence = f"{case.sequence}/{variant.label}"
        runs["candidate"] = replace(runs["candidate"], sequence=sequence, after=last.get(sequence, ""))
        last[sequence] = runs["candidate"].digest
    return replace(row, runs={role: spec.digest for role, spec in runs.items()}), runs


def _beyond_positions(case: Case, model: ModelSpec) -> str | None:
    """Give the reason why a model has no positions for all tokens of a size, or ``None``."""
    for tokens, most, what in zip(
        (case.size.tokens_h, case.size.tokens_w), model.most_tokens or (), ("high", "wide"), strict=False
    ):
        if tokens > most:
            return (
                f"{model.name} has rotary positions for pictures of at most {most * PIXELS_PER_TOKEN} pixels {what}, "
                f"and {case.size} is {tokens * PIXELS_PER_TOKEN}"
            )
    return None


def _declared_pads(case: Case, variant: Variant, engine: type[Engine], model: ModelSpec) -> Pads | None:
    """Return the pads of an engine that cuts no picture, where it declares them."""
    if variant.degree == 1:
        return None
    declared = plugins.ask(engine, "image_pads", case, variant, model)
    return None if declared is None else Pads(declared, pads_of(case.size.tokens, model.pad_multiple))


def _choice(case: Case, variant: Variant, engine: type[Engine], model: ModelSpec) -> AxisChoice | None:
    if engine.axes == ("none",) or variant.axis == "none" or variant.degree == 1:
        return None
    return choose_axis(case.size, variant.ulysses, variant.axis, variant.ring, model.pad_multiple, variant.layout)


def _runs(row: Row, model: ModelSpec, interpreter: str) -> dict[str, RunSpec]:
    case, variant, plan = row.case, row.variant, row.plan
    engine = plugins.load("engines", variant.engine)
    baseline_engine = plugins.load("engines", engine.baseline)
    # A cached candidate has a cached baseline: the cache changes the picture by itself.
    cached = variant.cache != "none"
    baseline = RunSpec(
        case=case,
        engine=baseline_engine.name,
        model_path=model.path,
        weights=model.weights,
        source=source_of(baseline_engine.name, variant.cache),
        cache=variant.cache,
        options={key: value for key, value in variant.options.items() if cached and key.startswith("cache_")},
    )
    total = plan.pad_tokens if plan else row.pads.total if row.pads else None
    replay = replace(baseline, image_pad_tokens=total) if row.surplus_pads else baseline
    neutral = {role: replace(baseline, token_order=DRAWS[role]) for role in draws_of(case.dtype)}
    if variant.engine == engine.baseline and engine.axes == ("none",) and not interpreter:
        return {"baseline": baseline, "replay": baseline, "control": baseline, "candidate": baseline, **neutral}
    whole = None if engine.axes == ("none",) else cut(case.size, 1, "h", model.pad_multiple)
    control = replace(
        baseline,
        engine=variant.engine,
        source=source_of(variant.engine, variant.cache, interpreter),
        environment=variant.environment,
        interpreter=interpreter,
        fault=variant.fault,
        options=variant.options,
        plan=whole,
    )
    candidate = replace(
        control,
        ulysses=variant.ulysses,
        ring=variant.ring,
        layout=variant.layout,
        plan=plan or whole,
    )
    if row.own and row.surplus_pads and engine.takes_image_pads:
        neutral["padded"] = replace(control, image_pad_tokens=total)
    return {"baseline": baseline, "replay": replay, "control": control, "candidate": candidate, **neutral}
