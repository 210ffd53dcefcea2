"""What is drawn appears whole, its pictures packed and unchanged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import codec
from harness.errors import InfrastructureError
from harness.execution.staging import Drawn
from harness.types import Case, Run, RunSpec, Size

SPEC = RunSpec(Case("c", "fake", Size(128, 128), ("p",)), "fake", "", "fake", "test")


@pytest.fixture
def drawn(tmp_path: Path) -> Drawn:
    building = tmp_path / ".run.building"
    building.mkdir()
    names = []
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 256, (64, 48, 3), dtype=np.uint8)
        names.append(f"image-{index}.tif")
        Image.fromarray(noise).save(building / names[-1])
    return Drawn(Run(SPEC, "ok", tuple(names)), building, tmp_path / "run")


def test_pictures_are_packed_without_loss(drawn: Drawn) -> None:
    before = [np.asarray(Image.open(drawn.building / name)) for name in drawn.run.images]
    run = drawn.publish()
    assert run.images == ("image-0.png", "image-1.png")
    assert codec.read_json(drawn.folder / "run.json", Run) == run
    assert {path.name for path in drawn.folder.iterdir()} == {"run.json", *run.images}
    assert not drawn.building.exists()
    for name, picture in zip(run.images, before, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(drawn.folder / name)), picture)


def test_until_then_nothing_is_there_and_after_it_nothing_older(drawn: Drawn) -> None:
    assert not drawn.folder.exists()
    drawn.folder.mkdir()
    (drawn.folder / "older.txt").touch()
    drawn.publish()
    assert not (drawn.folder / "older.txt").exists()


def test_a_picture_that_cannot_be_read_leaves_no_run(drawn: Drawn) -> None:
    (drawn.building / "image-1.tif").write_bytes(b"cut short")
    with pytest.raises(InfrastructureError, match=r"run: a run cannot be written \(.*image-1"):
        drawn.publish()
    assert not drawn.folder.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
def test_a_run_that_finds_the_disk_full_makes_room(drawn: Drawn, tmp_path: Path) -> None:
    (drawn.building / "image-1.png").symlink_to("/dev/full")
    with pytest.raises(InfrastructureError, match=r"run: a run cannot be written \(No space left on device\)"):
        drawn.publish()
    assert list(tmp_path.iterdir()) == []
