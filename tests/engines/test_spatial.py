"""The SP system in real processes over gloo, held to diffusers' own pipeline.

All runs of this file share one set of workers: what takes time is starting them.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from harness import models
from harness.engines.spatial import SpatialEngine
from harness.execution.events import Finished, Stepped
from harness.execution.pool import Pool
from harness.execution.rank import ForkedRank
from harness.planning import cut
from harness.types import Case, FailureKind, ModelSpec, Run, RunSpec, Size, Variant

PROMPT = "a purple ring right and a yellow ball left on tiles at day"
MODEL = ModelSpec("nano", "", "w", num_heads=6)

SPLITS = [
    ("128x128", 2, "h"),
    ("128x128", 2, "w"),
    ("144x144", 2, "h"),
    ("144x144", 2, "w"),
    ("144x144", 3, "h"),
    ("128x128", 3, "w"),
    ("256x144", 2, "w"),
    ("112x256", 2, "h"),
    ("512x512", 2, "h"),
]


def case(size: str, **fields: Any) -> Case:
    return Case(size, "nano", Size.parse(size), (PROMPT,), **{"steps": 2, **fields})


@dataclass(frozen=True)
class Split:
    """One candidate and the runs it is held to."""

    baseline: RunSpec
    replay: RunSpec
    control: RunSpec
    candidate: RunSpec

    @classmethod
    def of(cls, model: ModelSpec, size: str, num_ranks: int, axis: Any) -> "Split":
        drawn = case(size)
        baseline = RunSpec(drawn, "diffusers", model.path, model.weights, "test")
        plan = cut.cut(drawn.size, num_ranks, axis)
        replay = replace(baseline, image_pad_tokens=plan.pad_tokens) if plan.surplus_pad_tokens else baseline
        control = replace(baseline, engine="spatial", plan=cut.cut(drawn.size, 1, "h"))
        return cls(baseline, replay, control, replace(control, ulysses=num_ranks, plan=plan))


class Drawn:
    """Everything this file compares, computed by one set of workers."""

    def __init__(self, pool: Pool, folder: Path, model: ModelSpec) -> None:
        self.pool, self.folder = pool, folder
        self.splits = {key: Split.of(model, *key) for key in SPLITS}
        specs = {
            spec.digest: spec
            for split in self.splits.values()
            for spec in (split.baseline, split.replay, split.control, split.candidate)
        }
        self.recorded = replace(self.splits[SPLITS[2]].candidate, options={"graph": True})
        specs[self.recorded.digest] = self.recorded
        self.runs: Mapping[str, Run] = {
            event.run.spec.digest: event.run
            for event in pool.execute(list(specs.values()), self.folder_of)
            if isinstance(event, Finished)
        }

    def folder_of(self, spec: RunSpec) -> Path:
        return self.folder / spec.digest

    def arrays(self, spec: RunSpec) -> dict[str, np.ndarray[Any, Any]]:
        run = self.runs[spec.digest]
        assert run.failure is None, run.failure.detail
        found = load_file(self.folder_of(spec) / (run.latents or ""))
        with Image.open(self.folder_of(spec) / run.images[0]) as image:
            return {**found, "image": np.asarray(image)}

    def decibels(self, reference: RunSpec, candidate: RunSpec) -> float:
        """PSNR of the latents, their span being the reference's; infinite where they are equal."""
        left, right = (self.arrays(spec)["latents"].astype(np.float64) for spec in (reference, candidate))
        error = float(np.mean((left - right) ** 2))
        return float(10 * np.log10(np.ptp(left) ** 2 / error)) if error else np.inf


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    folder = tmp_path_factory.mktemp("spatial")
    with Pool(folder / "logs", keep=True) as pool:
        yield Drawn(pool, folder, models.resolve("nano"))


def assert_equal(drawn: Drawn, left: RunSpec, right: RunSpec) -> None:
    expected, found = drawn.arrays(left), drawn.arrays(right)
    assert {name for name in expected if not np.array_equal(expected[name], found[name])} == set()


@pytest.mark.parametrize("key", [("128x128", 2, "h"), ("512x512", 2, "h")], ids=str)
def test_without_pads_axis_h_is_diffusers_own_picture_to_the_last_bit(drawn: Drawn, key: Any) -> None:
    split = drawn.splits[key]
    assert split.candidate.plan is not None
    assert split.candidate.plan.pad_tokens == 0
    assert_equal(drawn, split.baseline, split.candidate)


@pytest.mark.parametrize("size", sorted({size for size, _, _ in SPLITS}))
def test_the_engine_on_one_device_is_the_pipeline_to_the_last_bit(drawn: Drawn, size: str) -> None:
    split = next(split for key, split in drawn.splits.items() if key[0] == size)
    assert_equal(drawn, split.baseline, split.control)


@pytest.mark.parametrize("key", SPLITS, ids=str)
def test_splitting_stays_at_the_noise_floor(drawn: Drawn, key: Any) -> None:
    split = drawn.splits[key]
    assert drawn.decibels(split.replay, split.candidate) >= 120


@pytest.mark.parametrize("key", SPLITS, ids=str)
def test_surplus_pads_and_nothing_else_set_the_picture_apart(drawn: Drawn, key: Any) -> None:
    split = drawn.splits[key]
    assert split.candidate.plan is not None
    pair = drawn.decibels(split.baseline, split.candidate)
    if split.candidate.plan.surplus_pad_tokens:
        assert pair < 60
        assert pair == pytest.approx(drawn.decibels(split.baseline, split.replay), abs=0.1)
    else:
        assert pair >= 120


def test_every_step_is_gathered(drawn: Drawn) -> None:
    split = drawn.splits["144x144", 2, "h"]
    found = drawn.arrays(split.candidate)
    assert found["trajectory"].shape == (2, 1, 16, 18, 18)
    assert np.array_equal(found["trajectory"][-1], found["latents"])
    run = drawn.runs[split.candidate.digest]
    assert run.caption_tokens == drawn.runs[split.baseline.digest].caption_tokens
    assert len(run.peak_memory_bytes) == 2
    assert len(run.times.steps_s) == 2
    assert set(run.versions) == {"python", "torch", "diffusers", "transformers"}


def test_recorded_steps_draw_the_same_picture_and_are_counted(drawn: Drawn) -> None:
    eager, run = drawn.splits[SPLITS[2]].candidate, drawn.runs[drawn.recorded.digest]
    assert_equal(drawn, eager, drawn.recorded)
    assert run.counters["exchanged_bytes"] == drawn.runs[eager.digest].counters["exchanged_bytes"]
    assert run.counters["graphs_recorded"] == run.counters["graph_steps"] == 2  # one on each rank
    assert run.counters["graph_bytes"] > 0


def test_a_rank_killed_inside_a_collective_is_named_and_not_its_peer(drawn: Drawn) -> None:
    """Its peer raises a moment later, as the connection closes; that is not the cause."""
    split = drawn.splits["512x512", 2, "h"]
    long = replace(split.candidate, case=case("512x512", steps=50))
    again = replace(split.candidate, source="again")
    runs: list[Run] = []
    killed = False
    for event in drawn.pool.execute([long, again], drawn.folder_of):
        if isinstance(event, Stepped) and not killed:
            killed = True
            (group,) = [group for (key, _), group in drawn.pool._groups.items() if key.world_size == 2]
            rank = group._ranks[1]
            assert isinstance(rank, ForkedRank)
            os.kill(rank.pid or 0, signal.SIGKILL)
        if isinstance(event, Finished):
            runs.append(event.run)
    failure = runs[0].failure
    assert failure is not None
    assert (failure.kind, failure.rank) == (FailureKind.KILLED, 1)
    assert runs[1].failure is None


def test_a_degree_that_does_not_divide_the_heads_is_refused() -> None:
    limits = SpatialEngine.limits(case("128x128"), Variant("spatial", ulysses=4), MODEL)
    assert limits is not None
    assert "does not divide the 6 heads" in limits


def test_a_cache_decides_at_every_step_and_cannot_be_recorded() -> None:
    limits = SpatialEngine.limits(
        case("128x128"), Variant("spatial", cache="cache-dit", options={"graph": True}), MODEL
    )
    assert (
        limits == "Cache-DiT decides at every step which layers to compute, and a graph computes the same ones always"
    )
    assert SpatialEngine.limits(case("128x128"), Variant("spatial", options={"graph": True}), MODEL) is None


@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_degrees_that_divide_the_heads_are_taken(degree: int) -> None:
    assert SpatialEngine.limits(case("128x128"), Variant("spatial", ulysses=degree), MODEL) is None


def test_faults_are_those_of_the_folder() -> None:
    assert {"gather-swapped", "gather-uncropped", "rope-origin-dropped"} <= set(SpatialEngine.faults())
