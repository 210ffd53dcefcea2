"""What the system refuses is told from what is wrong with a picture, by what libraries really raise."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save_file

from harness.types import FailureKind
from harness.worker.disk import Unwritable, errno_of, writing
from harness.worker.exhaustion import raised_by

PICTURE = Image.new("RGB", (64, 64))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
def test_a_picture_for_which_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "image.tif").symlink_to("/dev/full")
    with (
        pytest.raises(Unwritable, match=r"cannot be written \(No space left on device\)$") as caught,
        writing(tmp_path),
    ):
        PICTURE.save(tmp_path / "image.tif")
    assert (caught.value.folder, caught.value.number) == (tmp_path, errno.ENOSPC)


def test_a_library_in_rust_names_the_error_of_the_system(tmp_path: Path) -> None:
    def save() -> None:
        save_file({"latents": np.zeros(4, np.float32)}, tmp_path / "gone" / "latents.safetensors")

    with pytest.raises(SafetensorError) as raised:
        save()
    assert errno_of(raised.value) == errno.ENOENT
    with pytest.raises(Unwritable) as caught, writing(tmp_path):
        save()
    assert caught.value.number == errno.ENOENT


def test_a_picture_that_no_disk_would_take_is_the_engines(tmp_path: Path) -> None:
    """It raises an error of the system's kind, and the system has not been asked."""
    with pytest.raises(OSError, match="cannot write mode HSV") as raised, writing(tmp_path):
        Image.new("HSV", (64, 64)).save(tmp_path / "image.png")
    assert errno_of(raised.value) is None


def test_descriptors_that_run_out_are_not_held_against_the_engine(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(Unwritable) as caught, writing(tmp_path):
            PICTURE.save(tmp_path / "image.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.number == errno.EMFILE


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        SafetensorError("Error while serializing: I/O error: Cannot allocate memory (os error 12)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_want_of_memory_is_no_matter_of_the_folder(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match="Cannot allocate") as raised, writing(tmp_path):
        raise error
    assert raised_by(raised.value) is FailureKind.OUT_OF_MEMORY
