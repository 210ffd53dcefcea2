"""State of this machine: what can be drawn here, and what is lacking, in sentences."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import __version__, models, plugins
from harness.environments import table
from harness.environments.interpreters import facts_of
from harness.errors import HarnessError, UsageError
from harness.execution import gpus
from harness.execution.pool import num_slots
from harness.planning.fingerprint import packages_of
from harness.plugins import build

RANK_BYTES = 900 << 20
"""Memory of a rank that draws ``nano`` at 720x720 on a CPU (``peak_memory_bytes`` of matrices/pr.toml), rounded up."""
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "scikit-image")
LITTLE_DISK_BYTES = 2 << 30
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Limits of a container, which are below the machine's memory where there are any."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    sentence: str
    ok: bool = True
    """Whether nothing is to be done about it."""
    facts: Mapping[str, Any] = field(default_factory=dict)


def examine(folder: Path) -> list[Finding]:
    """Look at versions, memory, devices, disks, the shipped model, and engines with their environments.

    Parameters
    ----------
    folder
        Folder of matrices, whose environments.toml is read, and of the reports.
    """
    return [_versions(), _memory(), *_devices(), *_disks(folder), _model(), *_engines(folder)]


def _versions() -> Finding:
    found = {name: _version(name) for name in LIBRARIES}
    absent = [name for name, version in found.items() if version is None]
    here = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    lacking = f"; {', '.join(absent)} is not installed: pip install {' '.join(absent)}" if absent else ""
    python = f"sp-harness {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    facts = {"sp-harness": __version__, "python": platform.python_version(), **found}
    return Finding("versions", f"{python}, {here}{lacking}.", not absent, facts)


def _version(name: str) -> str | None:
    with suppress(Exception):  # metadata may be damaged, too
        return build.version(name)
    return None


def _memory() -> Finding:
    total, free = memory_bytes()
    slots = num_slots("cpu")
    ranks = free // RANK_BYTES if free is not None else None
    fits = "" if ranks is None else f" On the CPU {ranks} ranks of the model nano fit in what is free"
    shared = "" if ranks is None else f"; more than {slots} at a time share processors." if ranks > slots else "."
    sizes = f"{_gb(total)} of memory, {_gb(free)} free" if total is not None else "memory is not known on this system"
    facts = {"processors": slots, "memory_bytes": total, "free_bytes": free, "ranks": ranks}
    enough = ranks is None or ranks >= 2
    return Finding("memory", f"{slots} processors, {sizes}.{fits}{shared}", enough, facts)


def memory_bytes() -> tuple[int | None, int | None]:
    """Return the memory of this machine or container, and how much of it is free; ``None`` where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines)}
        total, free = known["MemTotal"], known["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, None
    for place in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            total = min(total, int(place.read_text(encoding="ascii")))
    return total, min(free, total)


def _devices() -> Iterator[Finding]:
    try:
        found = gpus.visible("cuda")
    except HarnessError as error:
        yield Finding("gpu", f"{error}.", ok=False)
        return
    if not found:
        yield Finding("gpu", 'No GPU is seen: cases on "cuda" cannot be drawn here.', facts={"gpus": []})
        return
    names = _gpu_names()
    shown = [names.get(gpu.uuid, gpu.uuid) for gpu in found]
    counts = ", ".join(f"{shown.count(name)} x {name}" for name in dict.fromkeys(shown))
    ranks = f"up to {len(found)} ranks, one on each" if len(found) > 1 else "one rank; a split needs two GPUs"
    facts = [{"index": gpu.index, "uuid": gpu.uuid, "name": name} for gpu, name in zip(found, shown, strict=True)]
    yield Finding("gpu", f'GPUs: {counts}. Cases on "cuda" are drawn on {ranks}.', facts={"gpus": facts})


def _gpu_names() -> dict[str, str]:
    """Return name and memory of each GPU by UUID, as nvidia-smi has them; empty without it."""
    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.split(", ") for line in done.stdout.splitlines())
    return {row[0]: f"{row[1]} ({row[2]})" for row in rows if len(row) == 3}


def _disks(folder: Path) -> Iterator[Finding]:
    for name, place in (("reports", folder / "reports"), ("cache", models.cache_dir())):
        there = next((path for path in (place.absolute(), *place.absolute().parents) if path.exists()), Path("/"))
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        words = f"{_gb(free)} are free for {name} in {place}" + ("" if writable else ", which cannot be written")
        few = "" if free > LITTLE_DISK_BYTES else "; a run of matrices/pr.toml needs about 0.5 GB"
        facts = {"path": str(place), "free_bytes": free, "writable": writable}
        yield Finding(f"disk {name}", f"{words}{few}.", writable and free > LITTLE_DISK_BYTES, facts)


def _model() -> Finding:
    try:
        return Finding("model", f"nano is in {models.resolve('nano').path}.")
    except HarnessError as error:
        return Finding("model", f"{error}.", ok=False)


def _engines(folder: Path) -> Iterator[Finding]:
    for name in plugins.names("engines"):
        yield _engine(name, "", name)
    try:
        entries = table.known(folder / "matrices") | table.known(folder)
    except UsageError as error:
        yield Finding("environments", f"{error}.", ok=False)
        return
    for place, python in entries.items():
        yield _engine(place.partition("@")[0], python, f"{place} in {python}")


def _engine(name: str, python: str, where: str) -> Finding:
    """Say whether an engine can draw in an environment, or what it lacks there."""
    topic = f"engine {where}"
    try:
        versions = facts_of(name, python).versions
        engine, needed = plugins.load("engines", name), packages_of(name, "none")
    except UsageError as error:
        return Finding(topic, f"{error}.", ok=False)
    absent = [package for package in needed if versions.get(package) is None]
    facts = {"versions": versions, "lacking": absent}
    if absent:
        apart = engine.own_environment and not python
        install = f"{python or 'python'} -m pip install {' '.join(absent)}"
        remedy = f"it has an environment of its own: sp-harness engines setup {name}" if apart else install
        return Finding(topic, f"lacks {', '.join(absent)}; {remedy}.", apart, facts)
    caches = [cache for cache in engine.caches if cache != "none" and not versions.get(cache)]
    without = f"; rows with a cache need {', '.join(caches)}" if caches else ""
    return Finding(topic, f"can draw{without}.", facts=facts)


def _gb(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 1e9:.1f} GB"
