"""Goldens on disk: names, what is written and read, and files that are altered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from harness import codec
from harness.errors import FileError, GoldenError
from harness.goldens import golden
from harness.types import Case, Run, RunSpec, Size

SMALL = Case("64x48", "fake", Size(64, 48), ("a ball",))
LARGE = Case("640x320", "fake", Size(640, 320), ("a ball",))
APPROVED = {"fake-u2-h": {"pair": 33.8, "layout": None}}
Write = Callable[..., tuple[Path, golden.Golden, Run]]


def latents_of(case: Case) -> Any:
    shape = (case.num_images, 4, case.size.tokens_h * 2, case.size.tokens_w * 2)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def picture_of(case: Case, index: int = 0) -> Any:
    shape = (case.size.height_px, case.size.width_px, 3)
    return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(case: Case = SMALL, store: str = "golden") -> tuple[Path, golden.Golden, Run]:
        drawn = tmp_path / "run"
        drawn.mkdir(exist_ok=True)
        names = tuple(f"image-{index}.png" for index in range(case.num_images))
        for index, name in enumerate(names):
            Image.fromarray(picture_of(case, index)).save(drawn / name)
        save_file({"latents": latents_of(case), "trajectory": latents_of(case)[None]}, drawn / "l.safetensors")
        run = Run(RunSpec(case, "fake", "", "some weights", "s"), "ok", names, "l.safetensors")
        folder = golden.folder_of(tmp_path / store, case, "cpu-float32")
        return folder, golden.write(folder, run, drawn, APPROVED, "cpu-float32", {"approved_by": "me"}), run

    return write


class TestNames:
    def test_a_platform_is_device_kind_and_dtype_not_a_cpu(self) -> None:
        assert golden.platform_of(SMALL, {"python": "3.11.9"}) == "cpu-float32"
        gpu = replace(SMALL, device="cuda", dtype="bfloat16")
        assert golden.platform_of(gpu, {"device": "NVIDIA H200"}) == "cuda-nvidia-h200-bfloat16"

    def test_a_folder_is_model_platform_case(self) -> None:
        assert golden.folder_of(Path("g"), SMALL, "cpu-float32") == Path("g/fake/cpu-float32") / SMALL.key

    @pytest.mark.parametrize(
        ("model", "name"),
        [("/models/Own Model", "own-model"), ("./own", "own"), ("org/name", "org--name")],
    )
    def test_models_of_every_kind_have_a_folder(self, model: str, name: str) -> None:
        case = replace(SMALL, model=model)
        assert golden.folder_of(Path("g"), case, "p") == Path("g") / name / "p" / case.key


class TestWriteAndLoad:
    def test_what_is_written_is_read(self, write: Write) -> None:
        folder, written, _ = write()
        read = golden.load(folder)
        assert read == written
        assert read is not None
        assert (read.case, read.platform, read.weights) == (SMALL, "cpu-float32", "some weights")
        assert read.approved == APPROVED
        assert read.provenance == {"approved_by": "me"}
        assert {file.name for file in folder.iterdir()} == {"image.png", "latents.safetensors", "golden.json"}
        assert set(read.files) == {"image.png", "latents.safetensors"}

    def test_no_golden(self, tmp_path: Path) -> None:
        assert golden.load(tmp_path) is None
        assert golden.load(tmp_path / "nowhere") is None

    def test_a_sample_is_the_picture_and_the_latents(self, write: Write) -> None:
        folder, written, _ = write()
        sample = golden.load_sample(folder, written)
        assert sample.key == f"golden:{SMALL.key}"
        assert sample.images is not None
        np.testing.assert_array_equal(sample.images[0], picture_of(SMALL))
        np.testing.assert_array_equal(sample.latents, latents_of(SMALL))

    def test_a_batch_keeps_every_picture(self, write: Write) -> None:
        case = replace(SMALL, prompts=("a", "b"))
        folder, written, _ = write(case)
        sample = golden.load_sample(folder, written)
        assert {"image.png", "image-1.png"} <= set(written.files)
        assert sample.images is not None
        for index, image in enumerate(sample.images):
            np.testing.assert_array_equal(image, picture_of(case, index))

    def test_a_large_picture_is_kept_whole_too(self, write: Write) -> None:
        folder, written, _ = write(LARGE)
        assert set(written.files) == {"image.png", "latents.safetensors"}
        sample = golden.load_sample(folder, written)
        assert sample.images is not None
        np.testing.assert_array_equal(sample.images[0], picture_of(LARGE))

    def test_a_golden_of_an_earlier_version_has_latents_and_no_picture(self, write: Write) -> None:
        folder, written, _ = write(LARGE)
        (folder / "image.png").rename(folder / "image-reduced.png")
        files = {name.replace("image.png", "image-reduced.png"): digest for name, digest in written.files.items()}
        codec.write_json(folder / "golden.json", replace(written, files=files))
        read = golden.load(folder)
        assert read is not None
        assert (golden.is_whole(written), golden.is_whole(read)) == (True, False)
        sample = golden.load_sample(folder, read)
        assert sample.images is None
        np.testing.assert_array_equal(sample.latents, latents_of(LARGE))

    def test_steps_on_the_way_are_not_kept(self, write: Write) -> None:
        from safetensors.numpy import load_file

        folder, _, _ = write()
        assert set(load_file(folder / "latents.safetensors")) == {"latents"}

    def test_writing_again_replaces_everything(self, write: Write) -> None:
        folder, _, _ = write()
        (folder / "left-over.png").write_bytes(b"")
        folder, again, _ = write()
        assert golden.load(folder) == again
        assert not (folder / "left-over.png").exists()
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]


class TestAltered:
    @pytest.mark.parametrize("case", [SMALL, LARGE], ids=["small", "large"])
    def test_every_file_is_guarded(self, write: Write, case: Case) -> None:
        folder, written, _ = write(case)
        assert written.files
        for name in written.files:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(GoldenError) as error:
                golden.load(folder)
            assert str(error.value).startswith(f"{folder / name}: does not match its digest in golden.json; restore it")
            assert error.value.exit_code == 1
            (folder / name).write_bytes(content)
        assert golden.load(folder) == written

    def test_a_file_that_is_gone(self, write: Write) -> None:
        folder, _, _ = write()
        (folder / "image.png").unlink()
        with pytest.raises(GoldenError, match=r"image\.png: is missing; restore it, or approve the case anew$"):
            golden.load(folder)

    def test_a_newer_schema(self, write: Write) -> None:
        folder, written, _ = write()
        codec.write_json(folder / "golden.json", {**codec.encode(written), "schema": 2})
        with pytest.raises(FileError, match=r"golden\.json: schema 2 is newer than 1.*update sp-harness"):
            golden.load(folder)


def test_the_description_is_plain_json(write: Write) -> None:
    folder, _, _ = write()
    told = json.loads((folder / "golden.json").read_text())
    assert told["schema"] == 1
    assert told["approved"] == APPROVED
    assert told["case"]["prompts"] == ["a ball"]
    assert all(len(digest) == 64 for digest in told["files"].values())
