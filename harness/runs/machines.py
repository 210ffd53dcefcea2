"""Devices and library versions of runs; runs of different ones are never compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.planning.graph import case_groups
from harness.types import Run, RunSpec


def differing(drawn: Iterable[tuple[object, Run]]) -> str:
    """Describe how the machines of some runs differ, in device or in an engine's library versions.

    Parameters
    ----------
    drawn
        Runs, each with the name of its origin.

    Returns
    -------
    str
        Empty where all agree.
    """
    found: dict[tuple[str, str], dict[str, object]] = {}
    for place, run in drawn:
        for name, version in run.versions.items():
            engine = "" if name == "device" else run.spec.engine_label
            found.setdefault((engine, name), {}).setdefault(version, place)
    for (_, name), places in found.items():
        if len(places) > 1:
            return f"{name} is " + ", ".join(f"{version} in {place}" for version, place in places.items())
    return ""


def mixed(specs: Iterable[RunSpec], runs: Mapping[str, Run]) -> dict[str, str]:
    """Find runs whose group (:func:`~harness.planning.graph.case_groups`) was drawn on different machines.

    That happens where a run is resumed on another machine.

    Returns
    -------
    dict of str to str
        Digest to a description of the difference.
    """
    found = {}
    for group in case_groups(specs):
        drawn = [runs[spec.digest] for spec in group if spec.digest in runs and runs[spec.digest].failure is None]
        how = differing((f"run {run.spec.digest}", run) for run in drawn)
        found.update({run.spec.digest: how for run in drawn if how})
    return found
