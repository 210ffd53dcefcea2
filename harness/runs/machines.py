"""Devices and library versions of runs: only what one kind of machine drew is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.planning.graph import case_groups
from harness.types import Run, RunSpec


def differing(drawn: Iterable[tuple[object, Run]]) -> str:
    """Say how the machines of some runs differ: in devices, or in what one engine was run with.

    Parameters
    ----------
    drawn
        Runs, each with the name of where it is from.
    """
    found: dict[tuple[str, str], dict[str, object]] = {}
    for place, run in drawn:
        for name, version in run.versions.items():
            engine = "" if name == "device" else run.spec.engine
            found.setdefault((engine, name), {}).setdefault(version, place)
    for (_, name), places in found.items():
        if len(places) > 1:
            return f"{name} is " + ", ".join(f"{version} in {place}" for version, place in places.items())
    return ""


def mixed(specs: Iterable[RunSpec], runs: Mapping[str, Run]) -> dict[str, str]:
    """Runs that stand beside others of another machine, by digest, and how the machines differ.

    A run that was finished elsewhere is one: what was drawn before and after cannot be compared.
    """
    found = {}
    for group in case_groups(specs):
        drawn = [runs[spec.digest] for spec in group if spec.digest in runs and runs[spec.digest].failure is None]
        how = differing((f"run {run.spec.digest}", run) for run in drawn)
        found.update({run.spec.digest: how for run in drawn if how})
    return found
