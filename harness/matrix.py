"""Matrix files: TOML to :class:`harness.types.Matrix`.

Data selects, code does: a matrix names sizes, prompts and variants, and everything is checked here
before anything is computed. The schema is described in ``docs/matrix.md``.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import registry
from harness.errors import ConfigError, did_you_mean
from harness.types import (
    SCHEMA,
    Axis,
    Bound,
    Cache,
    Case,
    Device,
    Domain,
    DType,
    GoldenPolicy,
    Layout,
    Matrix,
    Relation,
    Size,
    Variant,
)

Text = Annotated[str, Field(min_length=1)]
Degree = Annotated[int, Field(ge=1, le=1024)]
T = TypeVar("T")
Some = Annotated[list[T], Field(min_length=1)]


class _Table(BaseModel):
    """A TOML table: unknown keys and values of another type are refused, and so are ``nan`` and ``inf``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Shared(_Table):
    """Keys that stand at the top of the file and may be set again in a case."""

    model: Text | None = None
    revision: Text | None = None
    device: Device = "cpu"
    dtype: DType = "float32"
    steps: Annotated[int, Field(ge=1, le=1000)] = 4
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    golden: GoldenPolicy = "required"
    timeout_s: Annotated[float, Field(gt=0)] = 120.0


class _CaseTable(_Shared):
    size: str | Some[str]
    prompt: str | Some[str]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    negative_prompt: str | list[str] = ""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 0.0
    num_images_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    sequence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")] | None = None


class _VariantTable(_Table):
    engine: Text
    ulysses: Degree | Some[Degree] = 1
    ring: Degree = 1
    axis: Axis | Some[Axis] = "auto"
    layout: Layout | Some[Layout] = "aligned"
    cache: Cache = "none"
    fault: Text | None = None
    options: dict[str, str | int | float | bool] = {}
    required: bool = True
    cases: Some[Text] | None = None


class _BoundTable(_Table):
    relation: Literal["exchange", "control", "layout", "pair", "golden-baseline", "golden-candidate"]
    metric: Text
    domain: Domain = "latents"
    at_least: float | None = None
    at_most: float | None = None


class _File(_Shared):
    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    golden_store: Text | None = None
    metrics: list[Text] = []
    case: list[_CaseTable] = []
    variant: list[_VariantTable] = []
    bound: list[_BoundTable] = []


def read_matrix(path: Path) -> Matrix:
    """Read and check a matrix file.

    Raises
    ------
    ConfigError
        For anything that is wrong with the file; the message names file and key, and what to write.
    """
    table = _validate(path, _parse(path))
    _check_names(path, table)
    cases = tuple(_cases(path, table))
    variants, pairs = _variants(path, table, cases)
    return Matrix(
        name=table.name or path.stem,
        path=str(path),
        golden_store=str(_golden_store(path, table)),
        cases=cases,
        variants=variants,
        pairs=pairs,
        metrics=tuple(table.metrics),
        declared=tuple(_declared(path, table)),
    )


def _golden_store(path: Path, table: _File) -> Path:
    """``golden_store`` is relative to the matrix file; by default ``golden/`` beside the matrix' folder."""
    if table.golden_store:
        # Absolute, as a run folder may be judged later from another place.
        return Path(os.path.normpath(path.absolute().parent / Path(table.golden_store).expanduser()))
    return path.absolute().parent.parent / "golden"


def _declared(path: Path, table: _File) -> Iterator[tuple[Relation, Bound]]:
    for index, entry in enumerate(table.bound, 1):
        if (entry.at_least is None) == (entry.at_most is None):
            raise ConfigError(f"{path}: bound[{index}]: write either at_least = ... or at_most = ...")
        direction: Literal["at least", "at most"] = "at most" if entry.at_least is None else "at least"
        value = entry.at_most if entry.at_least is None else entry.at_least
        assert value is not None
        metric = registry.load("metrics", entry.metric)
        if entry.domain not in metric.domains:
            known = " or ".join(map(repr, metric.domains))
            raise ConfigError(f"{path}: bound[{index}].domain: {metric.name} is for {known} alone; write that")
        bound = Bound(entry.metric, entry.domain, value, metric.unit, "declared", 0.0, direction)
        yield Relation(entry.relation), bound


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); name a matrix file such as matrices/pr.toml") from None
    except ValueError as error:  # TOMLDecodeError, or a number too long for Python
        raise ConfigError(f"{path}: is no valid TOML: {error}") from None
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(f"{path}: schema: {schema} is newer than {SCHEMA}, the newest known here; update sp-harness")
    return data


def _validate(path: Path, data: dict[str, Any]) -> _File:
    try:
        return _File.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(_most_telling(error.errors()))}") from None


_TABLES: dict[str, type[BaseModel]] = {"case": _CaseTable, "variant": _VariantTable, "bound": _BoundTable}


def _most_telling(errors: Sequence[Any]) -> Any:
    """Pydantic's first complaint; where a key may be a value or a list, that of the form the file uses."""
    first = _location(errors[0])
    rivals = [error for error in errors if _location(error)[: len(first)] == first]
    return min(rivals, key=lambda error: (-len(_location(error)), error["type"].endswith("_type")))


def _explain(error: Any) -> str:
    """One line for a complaint of pydantic's: the key, what is wrong, what to write."""
    location = _location(error)
    key = _key(location)
    if error["type"] in ("list_type", "model_type") and location[0] in _TABLES and len(location) <= 2:
        return f"{key}: is no list of tables; write [[{location[0]}]], with two brackets"
    if error["type"] == "extra_forbidden":
        table = _TABLES.get(str(location[0]), _File) if len(location) > 1 else _File
        known = [field.alias or name for name, field in table.model_fields.items()]
        return f"{key}: unknown key; {did_you_mean(str(location[-1]), known)}"
    if error["type"] == "missing":
        return f"{key}: is missing; write {location[-1]} = ..."
    message = error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        message = did_you_mean(str(error["input"]), choices) if choices else message
    return f"{key}: {error['input']!r:.80}: {message}"


def _location(error: Any) -> list[Any]:
    """Keys and list positions that lead to the complaint, without the union's branch that pydantic adds."""
    *way, last = error["loc"]
    kept = [part for part in way if not _is_union_tag(part)]
    return kept if _is_union_tag(last) and error["type"] != "extra_forbidden" else [*kept, last]


def _is_union_tag(part: Any) -> bool:
    """Tell ``int`` or ``list[constrained-int]`` from a key; no key of ours looks like that."""
    tag = r"str|int|float|bool|(list|literal|constrained)[\[-].*"
    return isinstance(part, str) and re.fullmatch(tag, part) is not None


def _key(location: Iterable[Any]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            plain = re.fullmatch(r"[\w-]+", part)  # TOML quotes any other key, and a line break stays one line
            text += ("." if text else "") + (part if plain else json.dumps(part))
    return text


def _check_names(path: Path, table: _File) -> None:
    if not table.case:
        raise ConfigError(f'{path}: no case; add [[case]] with size = "720x1280" and prompt = "..."')
    if not table.variant:
        raise ConfigError(f'{path}: no variant; add [[variant]] with engine = "spatial"')
    for index, variant in enumerate(table.variant, 1):
        if variant.engine not in registry.names("engines"):
            hint = did_you_mean(variant.engine, registry.names("engines"))
            raise ConfigError(f"{path}: variant[{index}].engine: there is no engine {variant.engine!r}; {hint}")
    named = [(f"metrics[{index}]", metric) for index, metric in enumerate(table.metrics, 1)]
    named += [(f"bound[{index}].metric", bound.metric) for index, bound in enumerate(table.bound, 1)]
    for key, metric in named:
        if metric not in registry.names("metrics"):
            hint = did_you_mean(metric, registry.names("metrics"))
            raise ConfigError(f"{path}: {key}: there is no metric {metric!r}; {hint}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _cases(path: Path, table: _File) -> Iterator[Case]:
    names: dict[str, int] = {}
    identities: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for index, entry in enumerate(table.case, 1):
        where = f"{path}: case[{index}]"
        for text in _as_list(entry.size):
            case = _case(where, table, entry, text)
            identity = repr(case.identity())
            if case.sequence:  # requests of a sequence are told by their place and may repeat
                lengths[case.sequence] = lengths.get(case.sequence, 0) + 1
                case = replace(case, name=f"{case.sequence}-{lengths[case.sequence]}-{case.name}")
            elif identity in identities:
                raise ConfigError(f"{where}: draws the same as case[{identities[identity]}]; remove one of them")
            if case.name in names:
                raise ConfigError(f'{where}: is called {case.name!r} as is case[{names[case.name]}]; add name = "..."')
            names[case.name] = index
            if not case.sequence:
                identities[identity] = index
            yield case


def _case(where: str, table: _File, entry: _CaseTable, size_text: str) -> Case:
    try:
        size = Size.parse(size_text)
    except ValueError as error:
        raise ConfigError(f"{where}.size: {error}") from None
    shared = {name: getattr(entry if name in entry.model_fields_set else table, name) for name in _Shared.model_fields}
    if shared["model"] is None:
        raise ConfigError(f'{where}.model: is missing; write model = "nano" at the top of the file')
    several = isinstance(entry.size, list) and len(entry.size) > 1
    name = f"{entry.name}-{size}" if entry.name and several else entry.name or str(size)
    prompts = tuple(_as_list(entry.prompt))
    return Case(
        name=name,
        size=size,
        prompts=prompts,
        negative_prompts=_negative_prompts(where, entry, len(prompts)),
        guidance_scale=entry.guidance_scale,
        num_images_per_prompt=entry.num_images_per_prompt,
        sequence=entry.sequence,
        **shared,
    )


def _negative_prompts(where: str, entry: _CaseTable, num_prompts: int) -> tuple[str, ...]:
    """One negative prompt for each prompt: diffusers asserts on one for two."""
    if entry.guidance_scale == 0:
        if "negative_prompt" in entry.model_fields_set:
            raise ConfigError(f"{where}.negative_prompt: has no effect; set guidance_scale above 0 or remove it")
        return ()
    negative = _as_list(entry.negative_prompt)
    if len(negative) not in (1, num_prompts):
        raise ConfigError(f"{where}.negative_prompt: {len(negative)} for {num_prompts} prompts; give one, or as many")
    return tuple(negative * num_prompts if len(negative) == 1 else negative)


def _variants(
    path: Path, table: _File, cases: tuple[Case, ...]
) -> tuple[tuple[Variant, ...], tuple[tuple[str, str], ...]]:
    variants: dict[str, Variant] = {}
    pairs: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(table.variant, 1):
        where = f"{path}: variant[{index}]"
        met = _met_cases(where, entry, cases)
        for variant in _expand(entry):
            if variants.setdefault(variant.label, variant) != variant:
                raise ConfigError(f"{where}: differs from another {variant.label!r} only in `required`; make them one")
            for case in met:
                other = pairs.setdefault((case.name, variant.label), index)
                if other != index:
                    raise ConfigError(f"{where}: case {case.name!r} meets {variant.label!r} in variant[{other}] too")
    order = {case.name: position for position, case in enumerate(cases)}
    return tuple(variants.values()), tuple(sorted(pairs, key=lambda pair: order[pair[0]]))


def _met_cases(where: str, entry: _VariantTable, cases: tuple[Case, ...]) -> list[Case]:
    if entry.cases is None:
        return list(cases)
    for pattern in entry.cases:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            hint = did_you_mean(pattern, [case.name for case in cases])
            raise ConfigError(f"{where}.cases: no case is called {pattern!r}; {hint}")
    return [case for case in cases if any(fnmatchcase(case.name, pattern) for pattern in entry.cases)]


def _expand(entry: _VariantTable) -> Iterator[Variant]:
    for ulysses, axis, layout in product(_as_list(entry.ulysses), _as_list(entry.axis), _as_list(entry.layout)):
        yield Variant(
            engine=entry.engine,
            ulysses=ulysses,
            ring=entry.ring,
            axis=axis,
            layout=layout,
            cache=entry.cache,
            fault=entry.fault,
            options=dict(entry.options),
            required=entry.required,
        )
