"""Dataclasses to JSON and back, with the standard library alone.

Workers read their orders inside other engines' interpreters, where no validation library may be
expected; the same few lines then serve run.json, report.json and golden.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from harness import files
from harness.errors import FileError

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
        if data is None:
            return None
        return _decode(next(a for a in args if a is not type(None)), data)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"expected a list, found {type(data).__name__}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item) for item in data)
        return tuple(_decode(a, item) for a, item in zip(args, data, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, found {type(data).__name__}")
        return {k: _decode(args[1], v) for k, v in data.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return data


def _decode_dataclass(kind: Any, data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"expected an object for {kind.__name__}, found {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name: _decode(hints[f.name], data[f.name]) for f in dataclasses.fields(kind) if f.name in data}
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


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
    except ValueError as error:  # also of bytes that are no UTF-8
        raise FileError(f"{name}: is no valid JSON ({error})") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if schema is not None and isinstance(found, int) and found > schema:
        raise FileError(f"{name}: schema {found} is newer than {schema}, the newest known here; update sp-harness")
    try:
        return decode(kind, data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{name}: is no {kind.__name__} file ({error})") from None


def write_json(path: Path, value: Any) -> None:
    """Replace a file by JSON; see :func:`harness.files.write_bytes`."""
    files.write_text(path, json.dumps(encode(value), indent=1, allow_nan=False) + "\n")
