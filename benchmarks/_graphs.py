"""One rank of ``graphs.py``: draws every request eagerly and recorded, and times ways to compute a step.

Started by ``_launch.py`` as ``_graphs.py JOB``; the first rank's reply holds all figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from _graph_profile import KINDS, profiled

from harness.engines.diffusers import DiffusersEngine
from harness.engines.spatial import SpatialEngine
from harness.planning.cut import cut
from harness.plugins import Drawing, Engine, Worker
from harness.spatial.steps import Function, Recorder, Recordings
from harness.types import Case, RunSpec, Size

SHORT = "a ball"
OTHER = "a cone"
LONG = "a green cone in front of a white ring, a blue ball behind it, tiles, evening light, long shadows"
LONGER = "a white ring in front of a green cone, a red ball behind it, grass, morning light, short shadows, clouds"
UNEVEN = "720x720"
"""Size whose shards are uneven and have pads; features are compared there."""
GIGABYTE = 1e9


@dataclass(frozen=True)
class Feature:
    """A kind of request, twice: the second of the same shape, with other captions and masks."""

    name: str
    split: Mapping[str, Any]
    requests: tuple[Mapping[str, Any], Mapping[str, Any]]


def _plain(first: Sequence[str], second: Sequence[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return {"prompts": tuple(first)}, {"prompts": tuple(second), "seed": 1}


def _guided(first: str, second: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    shared = {"prompts": (SHORT,), "guidance_scale": 4.0}
    return {**shared, "negative_prompts": (first,)}, {**shared, "negative_prompts": (second,), "seed": 1}


FEATURES = (
    *(
        Feature(f"{layout}, {axis}", {"axis": axis, "layout": layout}, _plain([SHORT], [OTHER]))
        for layout in ("exact", "aligned")
        for axis in ("h", "w")
    ),
    *(
        Feature(f"{name} {value}", {"options": {name: value}}, _plain([LONG], [LONGER]))
        for name, value in (("exchange", "separate"), ("exchange", "overlapped"), ("norms", "fused"))
    ),
    Feature("guidance, one bucket", {}, _guided(OTHER, "dark")),
    Feature("guidance, a mask", {}, _guided(LONG, LONGER)),
    Feature("batch, another mask", {}, _plain([SHORT, LONG], [LONGER, OTHER])),
    Feature("batch, aligned, overlapped", {"layout": "aligned", "options": {"exchange": "overlapped"}},
            _plain([SHORT, LONG], [LONGER, OTHER])),
    Feature("ring", {"ulysses": 1, "ring": 2}, _plain([SHORT, LONG], [LONGER, OTHER])),
    Feature("ring, aligned", {"ulysses": 1, "ring": 2, "layout": "aligned"}, _plain([SHORT], [OTHER])),
)  # fmt: skip
SHORT_OF_MEMORY = Feature("out of memory on one rank", {}, _plain([SHORT], [OTHER]))


class Rank:
    """Both engines in this process, on two devices and on one."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.cuda = job["device"] == "cuda"
        torch.set_num_threads(1)
        if self.cuda:
            torch.cuda.set_device(self.rank)
        dist.init_process_group("nccl" if self.cuda else "gloo")
        self.spatial = self._loaded(SpatialEngine(), self.rank, self.world_size)
        self.alone = self._loaded(SpatialEngine(), 0, 1)
        self.diffusers = self._loaded(DiffusersEngine(), 0, 1)
        self.resident_bytes = torch.cuda.memory_allocated() if self.cuda else 0

    def _loaded(self, engine: Any, rank: int, world_size: int) -> Any:
        job = self.job
        engine.load(Worker(rank, world_size, job["device"], job["path"], job["dtype"]))
        return engine

    def say(self, line: str) -> None:
        """Write a line of progress."""
        if self.rank == 0 and self.job["progress"]:
            with Path(self.job["progress"]).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def spec(self, size: str, split: Mapping[str, Any], case: Mapping[str, Any], graph: bool) -> RunSpec:
        """One request."""
        job = self.job
        fields: dict[str, Any] = {"steps": job["steps"], "dtype": job["dtype"], "device": job["device"], **case}
        drawn = Case(size, job["model"], Size.parse(size), **fields)
        split = {"ulysses": 2, "ring": 1, "axis": "h", "layout": "exact", "options": {}, **split}
        degree = split["ulysses"] * split["ring"]
        return RunSpec(
            drawn, "spatial", job["path"], job["weights"], "graphs.py", split["ulysses"], split["ring"],
            split["layout"], options={**split["options"], "graph": graph},
            plan=cut(drawn.size, degree, split["axis"], layout=split["layout"]),
        )  # fmt: skip

    def draw(self, engine: Engine, spec: RunSpec) -> tuple[Drawing | None, dict[str, int]]:
        """Draw, and return what was counted too."""
        worker: Worker = engine.worker  # type: ignore[attr-defined]
        worker.counters.clear()
        drawing = engine.draw(spec)
        return drawing, dict(worker.counters)


# ---------------------------------------------------------------- equality


def equality(here: Rank) -> list[dict[str, Any]]:
    """Draw each feature's requests eagerly, then recorded by an engine that has met no shape before."""
    lines = []
    size = UNEVEN if UNEVEN in here.job["size"] else here.job["size"][0]
    for feature in FEATURES:
        lines.append(_compared(here, feature, size))
        here.say(json.dumps(lines[-1]))
    with _short_of_memory(here):
        lines.append(_compared(here, SHORT_OF_MEMORY, size))
        here.say(json.dumps(lines[-1]))
    return lines


def _compared(here: Rank, feature: Feature, size: str) -> dict[str, Any]:
    """Whether recorded requests equal eager ones; an error is told, and does not end what comes after."""
    try:
        found = _differences(here, feature, size)
    except Exception as error:
        found = [f"{type(error).__name__}: {error}".splitlines()[0]]
    return {"feature": feature.name, "size": size, "ok": not found, "result": "; ".join(found) or "equal"}


def _differences(here: Rank, feature: Feature, size: str) -> list[str]:
    here.spatial.recordings = Recordings()
    requests = [{**request, "steps": 3} for request in feature.requests]
    eager = [here.draw(here.spatial, here.spec(size, feature.split, request, False)) for request in requests]
    recorded = [here.draw(here.spatial, here.spec(size, feature.split, request, True)) for request in requests]
    found = []
    replayed = [counters.get("graph_steps", 0) for _, counters in recorded]
    failures = [counters.get("graphs_out_of_memory", 0) for _, counters in recorded]
    expected = ([0, 0], [1, 1]) if feature is SHORT_OF_MEMORY else ([2, 3], [0, 0])
    if (replayed, failures) != expected:
        found.append(f"steps replayed {replayed}, memory ran out {failures}")
    for number, ((one, sent), (other, counters)) in enumerate(zip(eager, recorded, strict=True), 1):
        if sent["exchanged_bytes"] != counters["exchanged_bytes"]:
            found.append(f"request {number}: sent {counters['exchanged_bytes']} bytes, eager {sent['exchanged_bytes']}")
        if one and other and not _same(one, other):
            found.append(f"request {number} differs by {np.abs(one.trajectory - other.trajectory).max():.3g}")
    first, second = (drawing for drawing, _ in eager)
    if first and second and _same(first, second):
        found.append("both requests are one picture")
    return found


def _same(one: Drawing, other: Drawing) -> bool:
    return bool(np.isfinite(one.trajectory).all()) and np.array_equal(one.trajectory, other.trajectory)


@contextlib.contextmanager
def _short_of_memory(here: Rank) -> Iterator[None]:
    """Let the last rank run out of memory while it records: on a GPU for real."""
    stock = here.spatial.recorder
    if here.rank == here.world_size - 1:
        here.spatial.recorder = _ShortOfMemory(stock, here.cuda)
    try:
        yield
    finally:
        here.spatial.recorder = stock


class _ShortOfMemory:
    def __init__(self, stock: Recorder, cuda: bool) -> None:
        self.warm_up, self.stock, self.cuda = stock.warm_up, stock, cuda

    def record(self, function: Function, traffic: Any) -> tuple[Function, int]:
        if not self.cuda:
            raise torch.OutOfMemoryError("there is no memory left")
        spare = 64 << 20
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + spare) / total)
        try:
            return self.stock.record(function, traffic)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


# ---------------------------------------------------------------- times


@dataclass(frozen=True)
class Way:
    """One way to compute a step."""

    name: str
    split: Mapping[str, Any]
    graph: bool = False
    alone: bool = False
    rounds: int | None = None
    """Runs; as many as the command line says where ``None``."""
    around: Callable[[], Any] = contextlib.nullcontext


ONE, ALONE, EXACT = "one device", "spatial alone", "exact"
"""diffusers' pipeline, and ``spatial``, on one device; ``spatial`` on two."""
WAYS = (
    Way(ONE, {}, alone=True),
    Way(ALONE, {}, alone=True, rounds=1),
    Way(f"{ALONE}, graph", {}, graph=True, alone=True, rounds=1),
    Way(EXACT, {}, rounds=1),
    Way(f"{EXACT}, graph", {}, graph=True),
    Way(f"{EXACT}, separate, graph", {"options": {"exchange": "separate"}}, graph=True, rounds=1),
    Way(f"{EXACT}, overlapped, graph", {"options": {"exchange": "overlapped"}}, graph=True, rounds=2),
    Way("aligned", {"layout": "aligned"}, rounds=1),
    Way("aligned, graph", {"layout": "aligned"}, graph=True, rounds=1),
)


def times(here: Rank, size: str, ways: Sequence[Way]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Time each way at one size, round by round, and profile one step of some."""
    here.spatial.recordings, here.alone.recordings = Recordings(), Recordings()
    steps_s: dict[str, list[list[float]]] = {way.name: [] for way in ways}
    seen: dict[str, Drawing | None] = {}
    lines: dict[str, dict[str, Any]] = {way.name: {"size": size, "way": way.name} for way in ways}
    for number in range(here.job["rounds"]):
        for way in ways:
            if number >= (way.rounds or here.job["rounds"]) or (way.alone and here.rank):
                continue
            drawing, counters, peak = _timed(here, size, way)
            lines[way.name] |= {"peak_gb": peak}
            lines[way.name]["graph_gb"] = counters.get("graph_bytes", 0) / GIGABYTE
            if drawing:
                steps_s[way.name].append(list(drawing.times.steps_s))
                seen[way.name] = drawing
        dist.barrier()
    if here.rank:
        return [], _profiles(here, size, ways)
    for way in ways:
        _finish_line(lines, way, steps_s, seen)
        here.say(json.dumps(lines[way.name]))
    return list(lines.values()), _profiles(here, size, ways)


def _timed(here: Rank, size: str, way: Way) -> tuple[Drawing | None, dict[str, int], float]:
    if here.cuda:
        torch.cuda.reset_peak_memory_stats()
    spec = here.spec(size, {"ulysses": 1, **way.split} if way.alone else way.split, {"prompts": (LONG,)}, way.graph)
    engine = here.diffusers if way.name == ONE else here.alone if way.alone else here.spatial
    with way.around():
        drawing, counters = here.draw(engine, spec)
    peak = (torch.cuda.max_memory_allocated() - here.resident_bytes) / GIGABYTE if here.cuda else 0.0
    return drawing, counters, peak


def _finish_line(
    lines: dict[str, dict[str, Any]], way: Way, steps_s: Mapping[str, list[list[float]]], seen: Mapping[str, Any]
) -> None:
    line, runs = lines[way.name], steps_s[way.name]
    line["runs_s"] = runs
    line["step_s"] = statistics.median(statistics.median(run[1:]) for run in runs)
    line["speed_up"] = lines[ONE]["step_s"] / line["step_s"]
    line |= {"record_s": None, "pays_from_step": None, "equal": None}
    eager = lines.get(way.name.partition(",")[0])
    if way.graph and way.around is contextlib.nullcontext:
        line["record_s"] = runs[0][1] - line["step_s"]  # the second step of the first run records
        line["equal"] = _same(seen[way.name.partition(",")[0]], seen[way.name])
        if eager and eager["step_s"] > line["step_s"]:
            line["pays_from_step"] = 1 + -(-line["record_s"] // (eager["step_s"] - line["step_s"]))


def _profiles(here: Rank, size: str, ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Kernels of one replay, by kind; nothing on a CPU."""
    lines = []
    for way in ways if here.cuda else ():
        if way.graph and way.name in (f"{EXACT}, graph", f"{ALONE}, graph") and not (way.alone and here.rank):
            engine = here.alone if way.alone else here.spatial
            engine.recordings = Recordings()
            _timed(here, size, way)
            (recording,) = engine.recordings.kept.values()
            lines.append({"size": size, "way": way.name, **profiled(recording)})
            here.say(json.dumps(lines[-1]))
    dist.barrier()
    return lines


# ---------------------------------------------------------------- alternatives

FEW = ("512x512", "1024x1024")
"""Sizes at which alternatives are timed."""
COMPILED = "1024x1024"
"""Size at which blocks are compiled, which takes long."""


def alternatives(size: str) -> tuple[Way, ...]:
    """Ways that round otherwise than diffusers; an option sets the recordings of compiled blocks apart."""
    one = Way(ONE, {}, alone=True, rounds=1)
    split = {"options": {"norms": "fused"}}
    norms = Way(f"{EXACT} fused norms", split, rounds=1), Way(f"{EXACT} fused norms, graph", split, True, rounds=2)
    blocks = Way(f"{EXACT}, graph, compiled", {"options": {"attention": "native"}}, True, rounds=2, around=_compiled)
    return (one, *norms, blocks) if size == COMPILED else (one, *norms)


_made: dict[str, Any] = {}


@contextlib.contextmanager
def _compiled() -> Iterator[None]:
    from unittest.mock import patch

    from harness.spatial import attention
    from harness.spatial.transformer import SpatialBlock

    if not _made:
        _made["exchange"] = torch.compiler.disable(attention.all_to_all)
        _made["block"] = torch.compile(SpatialBlock.forward, dynamic=False)
    with (
        patch.object(attention, "all_to_all", _made["exchange"]),
        patch.object(SpatialBlock, "forward", _made["block"]),
    ):
        yield


# ---------------------------------------------------------------- all of it


def measure(here: Rank) -> dict[str, Any]:
    """Everything the job asks for."""
    job = here.job
    figures: dict[str, Any] = {
        "equality": [],
        "ways": [],
        "profiles": [],
        "kinds": list(KINDS),
    }
    for size in job["size"] if job["only"] != "equality" else ():
        lines, profiles = times(here, size, WAYS)
        figures["ways"] += lines
        figures["profiles"] += profiles
    if job["only"] != "times":
        figures["equality"] = equality(here)
    for size in job["size"] if job["alternatives"] else ():
        if size in FEW or not here.cuda:
            try:
                figures["ways"] += times(here, size, alternatives(size))[0]
            except Exception as error:  # a compiler may not be there
                here.say(f"alternatives at {size}: {type(error).__name__}: {error}")
    return figures


def main() -> None:
    """Measure, and leave the reply beside the job."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    here = Rank(job)
    figures = measure(here)
    Path(job["folder"], f"{here.rank}.json").write_text(json.dumps(figures), encoding="utf-8")
    dist.barrier()
    os._exit(0)  # tearing NCCL down beside live graphs may hang


if __name__ == "__main__":
    main()
