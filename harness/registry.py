"""Plugins, found by their place: one file in ``harness/engines`` is one engine, and so on.

A file is imported when its plugin is asked for, never before, so that listing engines costs nothing
and a broken or uninstalled engine cannot break the others. Other distributions add plugins through
the entry-point groups ``sp_harness.engines``, ``sp_harness.metrics``, ... A plugin file holds exactly
one class with the plugin's ``name``; underscores in file names become hyphens.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import UsageError, did_you_mean

KINDS = ("engines", "metrics", "faults", "reporters")


def names(kind: str) -> list[str]:
    """Names of all plugins of a kind, sorted; nothing is imported."""
    return sorted({*_own(kind), *_foreign(kind)})


def load(kind: str, name: str) -> Any:
    """Import one plugin and return its class.

    Raises
    ------
    UsageError
        If there is no such plugin; the message offers the closest name.
    """
    if name in _own(kind):
        return _plugin_class(f"harness.{kind}.{name.replace('-', '_')}", name)
    foreign = _foreign(kind)
    if name in foreign:
        return foreign[name].load()
    raise UsageError(f"there is no {kind.removesuffix('s')} {name!r}; {did_you_mean(name, names(kind))}")


def load_all(kind: str) -> list[Any]:
    """Import every plugin of a kind, in the order of their names."""
    return [load(kind, name) for name in names(kind)]


def _own(kind: str) -> list[str]:
    package = importlib.import_module(f"harness.{kind}")
    return [m.name.replace("_", "-") for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]


def _foreign(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"sp_harness.{kind}")}


def _plugin_class(module_name: str, name: str) -> Any:
    module = importlib.import_module(module_name)
    own = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module_name and getattr(member, "name", None) == name
    ]
    if len(own) != 1:
        raise UsageError(f"{module_name} must hold one class with name = {name!r}, found {len(own)}")
    return own[0]
