"""Schema of matrix files.

Types, ranges and unknown keys are checked by pydantic; :func:`read_tables` turns its errors into one line for the
author of the file. The keys are described in ``docs/matrix.md``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.environments.table import NAME
from harness.errors import ConfigError, did_you_mean
from harness.types import MOST_RANKS, SCHEMA, Axis, Cache, Device, Domain, DType, GoldenPolicy, Layout

Text = Annotated[str, Field(min_length=1)]
Environment = Annotated[str, Field(pattern=f"^{NAME}$")]
Degree = Annotated[int, Field(ge=1, le=MOST_RANKS)]
T = TypeVar("T")


def _check_place(text: str) -> str:
    """Refuse control characters: no file system takes NUL, and no person means another."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("holds a control character; write a name, a path or a URL")
    return text


Place = Annotated[str, Field(min_length=1), AfterValidator(_check_place)]
Some = Annotated[list[T], Field(min_length=1)]


class Table(BaseModel):
    """TOML table that refuses unknown keys, values of another type, ``nan`` and ``inf``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Shared(Table):
    """Keys at the top of the file that a case may override."""

    model: Place | None = None
    revision: Place | None = None
    device: Device = "cpu"
    dtype: DType = "float32"
    steps: Annotated[int, Field(ge=1, le=1000)] = 4
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    golden: GoldenPolicy = "required"
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0


class CaseTable(Shared):
    """``[[case]]``."""

    size: str | Some[str]
    prompt: str | Some[str]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    negative_prompt: str | list[str] = ""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 0.0
    num_images_per_prompt: Annotated[int, Field(ge=1, le=64)] = 1
    sequence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")] | None = None


class VariantTable(Table):
    """``[[variant]]``."""

    engine: Text
    ulysses: Degree | Some[Degree] = 1
    ring: Degree = 1
    axis: Axis | Some[Axis] | None = None
    layout: Layout | Some[Layout] = "aligned"
    cache: Cache = "none"
    fault: Text | None = None
    options: dict[str, str | int | float | bool] = {}
    required: bool = True
    environment: Environment | Some[Environment] | None = None
    cases: Some[Text] | None = None

    @model_validator(mode="after")
    def _check_degree(self) -> Self:
        most = max(self.ulysses if isinstance(self.ulysses, list) else [self.ulysses])
        if most * self.ring > MOST_RANKS:
            raise ValueError(f"ulysses = {most} times ring = {self.ring} is more than {MOST_RANKS} ranks")
        return self


class BoundTable(Table):
    """``[[bound]]``."""

    relation: Literal["exchange", "control", "layout", "pair", "golden-baseline", "golden-candidate"]
    metric: Text
    domain: Domain = "latents"
    at_least: float | None = None
    at_most: float | None = None


class MatrixTables(Shared):
    """A whole matrix file."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    golden_store: Place | None = None
    golden_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    metrics: list[Text] = []
    case: list[CaseTable] = []
    variant: list[VariantTable] = []
    bound: list[BoundTable] = []


def read_tables(path: Path) -> MatrixTables:
    """Read a matrix file and check it against the schema.

    Raises
    ------
    ConfigError
        Naming file and key, in one line.
    """
    data = _parse(path)
    try:
        return MatrixTables.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(_most_telling(error.errors()))}") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); name a matrix file such as matrices/pr.toml") from None
    except RecursionError:
        raise ConfigError(f"{path}: is no valid TOML: arrays or tables are nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number too long for Python
        raise ConfigError(f"{path}: is no valid TOML: {error}") from None
    schema = data.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(f"{path}: schema: {schema} is newer than {SCHEMA}, the newest known here; update sp-harness")
    return data


_TABLES: dict[str, type[BaseModel]] = {"case": CaseTable, "variant": VariantTable, "bound": BoundTable}


def _most_telling(errors: Sequence[Any]) -> Any:
    """Return pydantic's first error; of a union of value and list, the one for the form that the file uses."""
    first = _location(errors[0])
    rivals = [error for error in errors if _location(error)[: len(first)] == first]
    return min(rivals, key=lambda error: (-len(_location(error)), error["type"].endswith("_type")))


def _explain(error: Any) -> str:
    """Format an error of pydantic: key, mistake, and what to write instead."""
    location = _location(error)
    key = _key(location)
    if error["type"] in ("list_type", "model_type") and location[0] in _TABLES and len(location) <= 2:
        return f"{key}: is no list of tables; write [[{location[0]}]], with two brackets"
    if error["type"] == "extra_forbidden":
        table = _TABLES.get(str(location[0]), MatrixTables) if len(location) > 1 else MatrixTables
        known = [field.alias or name for name, field in table.model_fields.items()]
        return f"{key}: unknown key; {did_you_mean(str(location[-1]), known)}"
    if error["type"] == "missing":
        return f"{key}: is missing; write {location[-1]} = ..."
    if error["type"] == "value_error" and isinstance(error["input"], dict):  # of a table as a whole
        return f"{key}: {error['ctx']['error']}"
    message = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    message = message[0].lower() + message[1:]
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        message = did_you_mean(str(error["input"]), choices) if choices else message
    return f"{key}: {error['input']!r:.80}: {message}"


def _location(error: Any) -> list[Any]:
    """Format the keys and list positions of an error, without the union branches that pydantic adds."""
    *way, last = error["loc"]
    kept = [part for part in way if not _is_union_tag(part)]
    return kept if _is_union_tag(last) and error["type"] != "extra_forbidden" else [*kept, last]


def _is_union_tag(part: Any) -> bool:
    """Whether a part of an error's location is a union branch such as ``int`` or ``list[constrained-int]``."""
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
