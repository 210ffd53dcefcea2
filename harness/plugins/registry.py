"""Plugins found by their place or by an entry point, and imported on use."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import UsageError, did_you_mean
from harness.plugins.engine import Engine, Fault
from harness.plugins.evaluation import Metric, Reporter
from harness.plugins.option import Option

KINDS: Mapping[str, type[Any]] = {"engines": Engine, "metrics": Metric, "faults": Fault, "reporters": Reporter}
"""Base class of each kind of plugin."""


def names(kind: str) -> list[str]:
    """List the names of all plugins of a kind, sorted; nothing is imported."""
    return sorted({*_own(kind), *_foreign(kind)})


def load(kind: str, name: str) -> Any:
    """Import one plugin and return its class.

    Raises
    ------
    UsageError
        If there is no such plugin (the message offers the closest name), if it cannot be imported, or if it is
        not what its base class asks for.
    """
    own = _own(kind)
    foreign = {} if name in own else _foreign(kind)  # reads the metadata of every installed distribution
    if name not in own and name not in foreign:
        raise UsageError(f"there is no {kind.removesuffix('s')} {name!r}; {did_you_mean(name, names(kind))}")
    place = f"harness.{kind}.{name.replace('-', '_')}" if name in own else foreign[name].value
    try:
        found = _class_in(importlib.import_module(place), name) if name in own else foreign[name].load()
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"{kind.removesuffix('s')} {name!r} ({place}) cannot be imported: {reason}") from error
    if problem := _problem(found, KINDS[kind], name):
        raise UsageError(f"{kind.removesuffix('s')} {name!r} ({place}) {problem}")
    return found


def distribution_of(kind: str, name: str) -> str:
    """Name the distribution that adds a plugin; empty for one of ours."""
    point = None if name in _own(kind) else _foreign(kind).get(name)
    return point.dist.name if point is not None and point.dist is not None else ""


def load_all(kind: str) -> list[Any]:
    """Import every plugin of a kind, in the order of their names."""
    return [load(kind, name) for name in names(kind)]


def _own(kind: str) -> list[str]:
    return _modules(tuple(importlib.import_module(f"harness.{kind}").__path__))


@cache
def _modules(folders: tuple[str, ...]) -> list[str]:
    """List the plugins of folders, once in this process: every look-up of a plugin asks for them."""
    return [m.name.replace("_", "-") for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")]


def _foreign(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"sp_harness.{kind}")}


def _class_in(module: Any, name: str) -> Any:
    own = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and getattr(member, "name", None) == name
    ]
    if len(own) != 1:
        raise UsageError(f"{module.__name__} must hold one class with name = {name!r}, found {len(own)}")
    return own[0]


def _problem(found: Any, base: type[Any], name: str) -> str | None:
    """Say how a class falls short of its base class, or ``None``."""
    if not (inspect.isclass(found) and issubclass(found, base)):
        return f"is no {base.__name__}: derive its class from harness.plugins.{base.__name__}"
    if getattr(found, "name", None) != name:
        return f"calls itself {getattr(found, 'name', None)!r}: class and entry point need one name"
    declared = [attribute for attribute in inspect.get_annotations(base) if not hasattr(found, attribute)]
    if lacking := [*sorted(getattr(found, "__abstractmethods__", ())), *declared]:
        return f"lacks {', '.join(lacking)}"
    return _problem_of_engine(found) if base is Engine else None


def _problem_of_engine(engine: Any) -> str | None:
    """Say which class attribute of an engine cannot be used, and what to write instead; ``None`` where all can."""
    for name in ("axes", "layouts", "caches", "packages", "load_time"):
        value = getattr(engine, name)
        if not (isinstance(value, tuple) and all(isinstance(part, str) for part in value)):
            return f"has {name} = {value!r}; write a tuple of texts such as ('none',)"
    wrong = {name: value for name, value in engine.options.items() if not isinstance(value, Option)}
    if wrong:
        return f"has options {wrong!r:.80}; declare each as harness.plugins.Option(type, default, help)"
    if "float32" in engine.control_db:
        return "has control_db for float32, in which the noise floor decides; declare it for bfloat16 or float16 alone"
    known = ("ulysses", "ring", "layout", "cache", *engine.options)
    if unknown := [name for name in engine.load_time if name not in known]:
        return f"has load_time {unknown[0]!r}; {did_you_mean(unknown[0], known)}"
    return None
