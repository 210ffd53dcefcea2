"""Every planted bug that draws a picture changes it at its row; one process group draws them all."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plugins
from harness.kill_score import planting
from harness.matrix.loader import read_matrix
from harness.session import steps
from harness.types import RunSpec
from tests import forking
from tests.faults.alone import ALONE

FAULTS_TOML = Path(__file__).resolve().parents[2] / "matrices" / "faults.toml"
LOUD = {name for name in plugins.names("faults") if plugins.load("faults", name).cause in ("crash", "hang")}
QUIET = [name for name in plugins.names("faults") if name not in LOUD]
SIZE = "176x144"
"""The smallest with uneven shards and no surplus pads at two ranks."""
LAST = "cache-survives-request"
"""It leaves an engine that is of no use to others."""


@dataclass(frozen=True)
class Drawn:
    """Latents, pictures, and bytes that were sent to other ranks."""

    latents: Any
    images: tuple[Any, ...]
    exchanged_bytes: int

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Drawn)
        pairs = [(self.latents, other.latents), *zip(self.images, other.images, strict=True)]
        equal = all(np.array_equal(first, second) for first, second in pairs)
        return equal and self.exchanged_bytes == other.exchanged_bytes


def draw_all(rank: int, world_size: int, store: str, specs: list[RunSpec], place: str) -> None:
    """Draw requests one after the other with one engine; the first rank writes what they come to."""
    import torch
    from torch import distributed as dist

    from harness.engines.spatial import SpatialEngine

    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    worker = plugins.Worker(rank, world_size, "cpu", specs[0].model_path, "float32")
    engine = SpatialEngine()
    engine.load(worker)
    found = {}
    for spec in specs:
        worker.counters.clear()
        drawing = engine.draw(spec)
        if drawing is not None:
            images = tuple(np.asarray(image) for image in drawing.images)
            found[spec.digest] = Drawn(np.asarray(drawing.latents), images, worker.counters["exchanged_bytes"])
    if rank == 0:
        Path(place).write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str, str | None], Drawn]:
    """What was drawn, by case, split, role and bug."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    folder = tmp_path_factory.mktemp("effects")
    matrix = planting.overridden(read_matrix(FAULTS_TOML), planting.Overrides(sizes=(SIZE,)))
    places, not_planted = planting.place(steps.plan(matrix), QUIET)
    assert not not_planted
    faulty = steps.plan(planting.planted(matrix, sorted(places, key=lambda place: place.fault == LAST), whole=False))
    places_alone = {pair for place in places if place.fault in ALONE for pair in place.pairs}
    wanted = [
        (row, role, faulty.specs[row.runs[role]])
        for row in faulty.rows
        for role in ("candidate", "control")
        if role == "candidate"
        or row.variant.fault in ALONE
        or (row.variant.fault is None and (row.case.name, row.variant.label) in places_alone)
    ]
    context = forking.context()
    found: dict[str, Drawn] = {}
    for world_size in (1, 2, 3):
        specs = list({spec.digest: spec for _, _, spec in wanted if spec.world_size == world_size}.values())
        ranks = [
            context.Process(
                target=draw_all,
                args=(rank, world_size, str(folder / f"store-{world_size}"), specs, str(folder / "found")),
            )
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(300)
            assert process.exitcode == 0
        found |= pickle.loads((folder / "found").read_bytes())
    return {
        (row.case.name, f"{row.variant.ulysses}x{row.variant.ring} {row.variant.axis}", role, row.variant.fault): found[
            spec.digest
        ]
        for row, role, spec in wanted
    }


@pytest.mark.parametrize("name", QUIET)
def test_a_bug_changes_the_result_and_the_request_before_it_does_not(name: str, rows: Any) -> None:
    drawn = {key[:3]: found for key, found in rows.items() if key[3] == name and key[2] == "candidate"}
    equal = [found == rows[*key, None] for key, found in drawn.items()]
    assert equal == [True] * (len(equal) - 1) + [False]


@pytest.mark.parametrize("name", ALONE)
def test_a_bug_that_needs_no_split_is_there_on_one_device(name: str, rows: Any) -> None:
    ((key, found),) = [(key[:3], found) for key, found in rows.items() if key[3] == name and key[2] == "control"]
    assert found != rows[*key, None]


def test_where_nothing_is_split_nothing_is_sent(rows: Any) -> None:
    alone, healthy = (rows["plain-176x144", "2x1 h", "candidate", fault] for fault in ("nothing-split", None))
    assert alone.exchanged_bytes == 0 < healthy.exchanged_bytes
    assert np.allclose(alone.latents, healthy.latents, atol=1e-3)
