"""Dataclasses to JSON and back, with the standard library alone.

Workers read their orders inside other engines' interpreters, where no validation library may be
expected; the same few lines then serve run.json, report.json and golden.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from harness import files
from harness.errors import FileError, NewerSchemaError

T = TypeVar("T")


def encode(value: Any) -> Any:
    """Turn dataclasses, enums, tuples and paths into plain JSON values; NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(kind: type[T], data: Any) -> T:
    """Rebuild a dataclass from :func:`encode`'s output; unknown keys are ignored (older reader, newer file).

    Raises
    ------
    ValueError
        If a field without default is missing or the data has another shape.
    """
    return typing.cast(T, _decode(kind, data))


def _decode(kind: Any, data: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(args, data)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data)
    if origin is tuple:
        _expect(isinstance(data, list), "a list", data)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item) for item in data)
        return tuple(_decode(a, item) for a, item in zip(args, data, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(isinstance(data, dict), "an object", data)
        return {k: _decode(args[1], v) for k, v in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return _decode_plain(kind, data)


def _decode_union(kinds: Sequence[Any], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    problem = ValueError(f"expected another value than {data!r:.40}")
    for kind in kinds:
        try:
            return _decode(kind, data)
        except ValueError as error:
            problem = error if kind is not type(None) else problem
    raise problem


def _decode_plain(kind: Any, data: Any) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        _expect(data in typing.get_args(kind), f"one of {', '.join(map(str, typing.get_args(kind)))}", data)
    elif kind is float:
        _expect(data is None or _is_number(data), "a number", data)
        return math.nan if data is None else data  # how NaN is written
    elif kind is int:
        _expect(isinstance(data, int) and _is_number(data), "an integer", data)
    elif kind is bool or kind is str:
        _expect(isinstance(data, kind), "text" if kind is str else "true or false", data)
    elif kind is type(None):
        _expect(data is None, "null", data)
    return data


def _is_number(data: Any) -> bool:
    """Whether this is a number that a float can hold."""
    return isinstance(data, int | float) and not isinstance(data, bool) and abs(data) <= sys.float_info.max


def _expect(ok: bool, wanted: str, data: Any) -> None:
    if not ok:
        raise ValueError(f"expected {wanted}, found {data!r:.40}")


def _decode_dataclass(kind: Any, data: Any) -> Any:
    _expect(isinstance(data, dict), f"an object for {kind.__name__}", data)
    known = {}
    for name, hint in _fields(kind):
        if name in data:
            try:
                known[name] = _decode(hint, data[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


@cache
def _fields(kind: Any) -> list[tuple[str, Any]]:
    """Names and types of a dataclass; they are evaluated from text, which takes longer than to decode most values."""
    hints = typing.get_type_hints(kind)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]


def read_json(path: Path, kind: type[T], schema: int | None = None) -> T:
    """Read a dataclass from a file.

    Raises
    ------
    FileError
        If the file is missing, is not JSON of this kind, or has a newer schema version than ours.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_json(text, str(path), kind, schema)


def parse_json(text: bytes | str, name: str, kind: type[T], schema: int | None = None) -> T:
    """Make a dataclass of a file's content; ``name`` says in errors where it came from.

    Raises
    ------
    FileError
        As :func:`read_json`.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # also of bytes that are no UTF-8
        raise FileError(f"{name}: is no valid JSON ({error})") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if schema is not None and isinstance(found, int) and found > schema:
        raise NewerSchemaError(
            f"{name}: schema {found} is newer than {schema}, the newest known here; update sp-harness"
        )
    try:
        return decode(kind, data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{name}: is no {kind.__name__} file ({error})") from None


def write_json(path: Path, value: Any, durable: bool = False) -> None:
    """Replace a file by JSON; see :func:`harness.files.write_bytes`."""
    files.write_text(path, json.dumps(encode(value), indent=1, allow_nan=False) + "\n", durable=durable)
