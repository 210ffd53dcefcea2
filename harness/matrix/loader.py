"""Matrix files: TOML to :class:`harness.types.Matrix`.

A matrix names sizes, prompts and variants. Everything in it is checked here, before anything is computed. The schema
is described in ``docs/matrix.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Literal

from harness import plugins
from harness.environments import table as table_of_environments
from harness.errors import ConfigError, UsageError, did_you_mean
from harness.matrix.golden_store import check_protocol, is_url, key_of
from harness.matrix.schema import CaseTable, MatrixTables, Shared, VariantTable, read_tables
from harness.types import Bound, Case, Matrix, Relation, Size, Variant


def read_matrix(path: Path, python: Sequence[str] = ()) -> Matrix:
    """Read and check a matrix file.

    Parameters
    ----------
    path
        The file; interpreters of ``environments.toml`` beside it are known to its variants.
    python
        Interpreters of the command line, ``ENGINE[@NAME]=PYTHON``.

    Raises
    ------
    ConfigError
        For any mistake in the file; the message names file and key, and what to write instead.
    """
    table = read_tables(path)
    _check_names(path, table)
    cases = tuple(_cases(path, table))
    declared = tuple(_declared(path, table))
    variants, pairs = _variants(path, table, cases)
    matrix = Matrix(
        name=table.name or path.stem,
        path=str(path),
        golden_store=_golden_store(path, table),
        cases=cases,
        variants=variants,
        pairs=pairs,
        metrics=tuple(table.metrics),
        declared=declared,
        golden_digest=table.golden_digest,
        golden_keys=tuple(key_of(case) for case in cases if case.golden == "required"),
    )
    return with_interpreters(matrix, table_of_environments.known(path.parent, python), python)


def with_interpreters(matrix: Matrix, known: Mapping[str, str], python: Sequence[str] = ()) -> Matrix:
    """Return a matrix with the interpreters that its variants need.

    Parameters
    ----------
    matrix
        The matrix.
    known
        Interpreters by address.
    python
        Words of the command line among them, each of which has to be of use.

    Raises
    ------
    UsageError
        If no variant runs in an environment that the command line names.
    """
    needed = sorted({table_of_environments.address(variant.engine, variant.environment) for variant in matrix.variants})
    for word in python:
        place = word.partition("=")[0]
        if place not in needed:
            raise UsageError(
                f"--python {word!r}: no variant of {matrix.path} runs there; {did_you_mean(place, needed)}"
            )
    return replace(matrix, interpreters={place: known[place] for place in needed if place in known})


def known_interpreters(matrix: Matrix, python: Sequence[str] = ()) -> dict[str, str]:
    """Return the interpreters of engines by address: those recorded with a matrix, else of environments.toml.

    Parameters
    ----------
    matrix
        The matrix of a run.
    python
        Words of the command line, which come before both.
    """
    of_files = table_of_environments.known(Path(matrix.path).parent)
    return of_files | dict(matrix.interpreters) | table_of_environments.named(python)


def current_pin(matrix: Matrix) -> str | None:
    """Return the present pin of a matrix's file, which may be newer than the run; ``None`` if it cannot be read."""
    try:
        return read_matrix(Path(matrix.path)).golden_digest
    except UsageError:
        return None


def current_store(matrix: Matrix) -> str:
    """Return the golden store on this machine: the recorded one, or that of the matrix file in this place.

    Raises
    ------
    ConfigError
        If that file has a mistake.
    """
    if Path(matrix.golden_store).is_dir() or not Path(matrix.path).is_file():
        return matrix.golden_store
    return read_matrix(Path(matrix.path)).golden_store


def _golden_store(path: Path, table: MatrixTables) -> str:
    """Return a URL, or the absolute path of a folder; by default ``golden/`` beside the folder of the matrix.

    Where that lies outside the repository of the matrix, as for one at its top, it is ``golden/`` of the repository.
    """
    if table.golden_store is None:
        folder = path.absolute().parent
        root = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
        return str((folder if root == folder else folder.parent) / "golden")
    if is_url(table.golden_store):
        try:
            check_protocol(table.golden_store)
        except ConfigError as error:
            raise ConfigError(f"{path}: golden_store: {error}") from None
        return table.golden_store
    # Absolute, as a run folder may be judged from another working directory.
    return os.path.normpath(path.absolute().parent / Path(table.golden_store).expanduser())


def _declared(path: Path, table: MatrixTables) -> Iterator[tuple[Relation, Bound]]:
    for index, entry in enumerate(table.bound, 1):
        if (entry.at_least is None) == (entry.at_most is None):
            raise ConfigError(f"{path}: bound[{index}]: write either at_least = ... or at_most = ...")
        direction: Literal["at least", "at most"] = "at most" if entry.at_least is None else "at least"
        value = entry.at_most if entry.at_least is None else entry.at_least
        assert value is not None
        metric = plugins.load("metrics", entry.metric)
        if entry.domain not in metric.domains:
            known = " or ".join(map(repr, metric.domains))
            raise ConfigError(f"{path}: bound[{index}].domain: {metric.name} is for {known} alone; write that")
        bound = Bound(entry.metric, entry.domain, value, metric.unit, "declared", 0.0, direction)
        yield Relation(entry.relation), bound


def _check_names(path: Path, table: MatrixTables) -> None:
    if not table.case:
        raise ConfigError(f'{path}: no case; add [[case]] with size = "720x1280" and prompt = "..."')
    if not table.variant:
        raise ConfigError(f'{path}: no variant; add [[variant]] with engine = "spatial"')
    engines = plugins.names("engines")  # reads the metadata of every installed distribution
    for index, variant in enumerate(table.variant, 1):
        if variant.engine not in engines:
            hint = did_you_mean(variant.engine, engines)
            raise ConfigError(f"{path}: variant[{index}].engine: there is no engine {variant.engine!r}; {hint}")
    named = [(f"metrics[{index}]", metric) for index, metric in enumerate(table.metrics, 1)]
    named += [(f"bound[{index}].metric", bound.metric) for index, bound in enumerate(table.bound, 1)]
    metrics = plugins.names("metrics") if named else []
    for key, metric in named:
        if metric not in metrics:
            hint = did_you_mean(metric, metrics)
            raise ConfigError(f"{path}: {key}: there is no metric {metric!r}; {hint}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _cases(path: Path, table: MatrixTables) -> Iterator[Case]:
    names: dict[str, int] = {}
    identities: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for index, entry in enumerate(table.case, 1):
        where = f"{path}: case[{index}]"
        for text in _as_list(entry.size):
            case = _case(where, table, entry, text)
            identity = repr(case.identity())
            if case.sequence:  # requests of a sequence are named by position and may repeat
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


def _case(where: str, table: MatrixTables, entry: CaseTable, size_text: str) -> Case:
    try:
        size = Size.parse(size_text)
    except ValueError as error:
        raise ConfigError(f"{where}.size: {error}") from None
    shared = {name: getattr(entry if name in entry.model_fields_set else table, name) for name in Shared.model_fields}
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


def _negative_prompts(where: str, entry: CaseTable, num_prompts: int) -> tuple[str, ...]:
    """Return one negative prompt for each prompt; diffusers asserts on one for two."""
    if entry.guidance_scale == 0:
        if entry.negative_prompt not in ("", []):
            raise ConfigError(f"{where}.negative_prompt: has no effect; set guidance_scale above 0 or remove it")
        return ()
    negative = _as_list(entry.negative_prompt)
    if len(negative) not in (1, num_prompts):
        raise ConfigError(f"{where}.negative_prompt: {len(negative)} for {num_prompts} prompts; give one, or as many")
    return tuple(negative * num_prompts if len(negative) == 1 else negative)


def _variants(
    path: Path, table: MatrixTables, cases: tuple[Case, ...]
) -> tuple[tuple[Variant, ...], tuple[tuple[str, str], ...]]:
    variants: dict[str, Variant] = {}
    pairs: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(table.variant, 1):
        where = f"{path}: variant[{index}]"
        met = _met_cases(where, entry, cases)
        for variant in expand(entry):
            if variants.setdefault(variant.label, variant) != variant:
                raise ConfigError(f"{where}: differs from another {variant.label!r} only in `required`; make them one")
            for case in met:
                other = pairs.setdefault((case.name, variant.label), index)
                if other != index:
                    raise ConfigError(f"{where}: case {case.name!r} meets {variant.label!r} in variant[{other}] too")
    order = {case.name: position for position, case in enumerate(cases)}
    return tuple(variants.values()), tuple(sorted(pairs, key=lambda pair: order[pair[0]]))


def _met_cases(where: str, entry: VariantTable, cases: tuple[Case, ...]) -> list[Case]:
    if entry.cases is None:
        return list(cases)
    for pattern in entry.cases:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            hint = did_you_mean(pattern, [case.name for case in cases])
            raise ConfigError(f"{where}.cases: no case is called {pattern!r}; {hint}")
    return [case for case in cases if any(fnmatchcase(case.name, pattern) for pattern in entry.cases)]


def expand(entry: VariantTable) -> Iterator[Variant]:
    """Yield the variants of one table: one for each combination of its lists.

    Without ``axis`` it is ``auto``, and for an engine that knows no such axis the first that it knows.
    """
    known = plugins.load("engines", entry.engine).axes
    axes = (["auto"] if "auto" in known else [*known[:1]]) if entry.axis is None else _as_list(entry.axis)
    environments = [""] if entry.environment is None else _as_list(entry.environment)
    choices = product(environments, _as_list(entry.ulysses), axes, _as_list(entry.layout))
    for environment, ulysses, axis, layout in choices:
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
            environment=environment,
        )
