"""Environment of a row's engine: its interpreter, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping

from harness.environments import facts, locks
from harness.environments.table import address
from harness.plugins import Engine
from harness.types import Device, Variant


def interpreter_of(variant: Variant, known: Mapping[str, str]) -> str:
    """Return the interpreter of a variant's engine; empty for that of the harness."""
    return known.get(address(variant.engine, variant.environment), "")


def missing(variant: Variant, device: Device, engine: type[Engine], known: Mapping[str, str]) -> str | None:
    """Say which environment is not set up, and how it is; ``None`` where the engine has one."""
    name = variant.environment
    if address(engine.name, name) in known:
        return None
    if name:
        return f"{engine.name} has no environment {name!r} here; {_remedy(engine.name, name, device)}"
    if not engine.own_environment or _installed_here(engine):
        return None
    return f"{engine.name} is not installed in this environment; name another's with --python {engine.name}=PYTHON"


def _remedy(engine: str, name: str, device: Device) -> str:
    releases = locks.versions(engine, device)
    if name in releases:
        flag = " --cpu" if device == "cpu" else ""
        return f"make it with: sp-harness engines setup {engine} --version {name}{flag}"
    known = f" (releases that are made by sp-harness engines setup: {', '.join(releases)})" if releases else ""
    return f"name its interpreter with --python {engine}@{name}=PYTHON{known}"


def _installed_here(engine: type[Engine]) -> bool:
    versions = facts.collect(engine.name).versions
    return all(versions[package] is not None for package in engine.packages)
