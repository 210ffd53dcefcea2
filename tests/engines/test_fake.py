"""The fake engine: what it draws, and that every fault breaks it in its own way."""

from typing import Any

import numpy as np
import pytest

from harness.engines.fake import FakeEngine
from harness.planning import cut
from harness.plugins import Drawing, Worker
from harness.types import Case, ModelSpec, RunSpec, Size, Variant

MODEL = ModelSpec("fake", "", "fake", num_heads=6)
PICTURE_FAULTS = ("off-by-one-token", "seam", "swapped-ranks")


def spec(world_size: int = 2, axis: Any = "h", **fields: Any) -> RunSpec:
    case = Case("c", "fake", Size(144, 112), ("waves",), **fields.pop("case", {}))
    plan = cut.cut(case.size, world_size, axis)
    return RunSpec(case, "fake", "", "fake", "test", ulysses=world_size, plan=plan, **fields)


def draw(run: RunSpec, rank: int = 0) -> Drawing | None:
    engine = FakeEngine()
    engine.load(Worker(rank, run.world_size, "cpu", "", "float32"))
    return engine.draw(run)


def latents(run: RunSpec) -> np.ndarray[Any, Any]:
    drawing = draw(run)
    assert drawing is not None
    array: np.ndarray[Any, Any] = drawing.latents
    return array


def test_a_drawing_has_all_that_an_engine_owes() -> None:
    steps: list[int] = []
    engine = FakeEngine()
    engine.load(Worker(0, 1, "cpu", "", "float32", progress=steps.append))
    run = spec(1, case={"steps": 3, "num_images_per_prompt": 2})
    drawing = engine.draw(run)
    assert drawing is not None
    assert steps == [1, 2, 3]
    assert [image.size for image in drawing.images] == [(144, 112)] * 2
    assert drawing.latents.shape == (2, 4, 14, 18)
    assert drawing.latents.dtype == np.float32
    assert drawing.trajectory.shape == (3, 2, 4, 14, 18)
    assert np.array_equal(drawing.trajectory[-1], drawing.latents)
    assert not np.array_equal(drawing.trajectory[0], drawing.latents)
    assert len(drawing.times.steps_s) == 3
    assert drawing.caption_tokens == (1,)
    assert draw(spec(2), rank=1) is None


def test_a_split_costs_nothing_and_pads_cost_a_little() -> None:
    whole = latents(spec(1))
    assert np.array_equal(latents(spec(1)), whole)
    split = spec(2)
    assert split.plan is not None
    assert split.plan.surplus_pad_tokens > 0
    assert 0 < np.abs(latents(split) - whole).max() < 0.1
    replay = RunSpec(split.case, "fake", "", "fake", "test", image_pad_tokens=split.plan.pad_tokens)
    assert np.array_equal(latents(replay), latents(split))


@pytest.mark.parametrize("change", [{"seed": 1}, {"prompts": ("other",)}])
def test_prompt_and_seed_decide_the_picture(change: dict[str, Any]) -> None:
    case = {"seed": 0} | change
    prompts = case.pop("prompts", ("waves",))
    other = RunSpec(Case("c", "fake", Size(144, 112), prompts, **case), "fake", "", "fake", "test")
    assert not np.array_equal(latents(other), latents(spec(1)))


@pytest.mark.parametrize("axis", ["h", "w"])
@pytest.mark.parametrize("fault", [*PICTURE_FAULTS, "nan", "wrong-size"])
def test_a_fault_breaks_the_split_run_and_only_that(fault: str, axis: Any) -> None:
    healthy, broken = latents(spec(2, axis)), latents(spec(2, axis, fault=fault))
    if fault == "wrong-size":
        assert broken.size < healthy.size
    elif fault == "nan":
        assert np.isnan(broken).all()
    else:
        assert broken.shape == healthy.shape
        assert not np.array_equal(broken, healthy)
    assert np.array_equal(latents(spec(1, fault=fault)), latents(spec(1)))


def test_a_seam_stays_at_the_border() -> None:
    run = spec(2, "h", fault="seam")
    assert run.plan is not None
    rows = np.flatnonzero((latents(run) != latents(spec(2, "h"))).any(axis=(0, 1, 3)))
    assert rows.tolist() == [run.plan.origins[1] * 2]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("crash", RuntimeError),
        ("out-of-memory", MemoryError),
        ("nccl-out-of-memory", RuntimeError),
        ("disk-full", OSError),
    ],
)
def test_the_last_rank_raises(fault: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"was told to|NCCL Error 1"):
        draw(spec(2, fault=fault), rank=1)


def test_limits_say_why() -> None:
    case = spec().case
    assert FakeEngine.limits(case, Variant("fake", ulysses=2), MODEL) is None
    assert "does not divide the 6 heads" in (FakeEngine.limits(case, Variant("fake", ulysses=4), MODEL) or "")
    other = ModelSpec("nano", "", "x", num_heads=6)
    assert "not 'nano'" in (FakeEngine.limits(case, Variant("fake"), other) or "")
    waiting = {"crash", "descriptors", "disk-full", "hang", "out-of-memory", "nccl-out-of-memory"}
    assert {*PICTURE_FAULTS, *waiting, "nan", "wrong-size"} == set(FakeEngine.faults())
