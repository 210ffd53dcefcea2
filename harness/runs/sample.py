"""Arrays of a run or a golden, as they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from harness import files
from harness.errors import FileError
from harness.types import Recorded

Array = np.ndarray[Any, Any]

DIMENSIONS = {"latents": 4, "trajectory": 5}
"""Number of dimensions of the arrays in a safetensors file."""
LARGEST_PX = 8192 * 8192
"""Area of the largest picture that is read: a small file may claim any size."""


@dataclass(frozen=True)
class Sample:
    """Pictures ``H,W,3`` uint8 and latents ``B,C,H,W`` float32 of a run or a golden.

    ``trajectory`` holds the latents after each step, ``T,B,C,H,W``. Any may be absent: large goldens keep
    their latents only.
    """

    key: str
    images: tuple[Array, ...] | None
    latents: Array | None
    trajectory: Array | None = None


def load_sample(key: str, folder: Path, images: Sequence[str] | None, latents: str | None) -> Sample:
    """Load a sample from a folder.

    Parameters
    ----------
    key
        Digest of the run, or the golden's name.
    folder
        Folder of the files.
    images
        Names of the pictures; ``None`` where they are not kept.
    latents
        Name of the safetensors file of latents and trajectory, if there is one.

    Raises
    ------
    FileError
        If a file is missing or damaged.
    """
    arrays = read_latents(folder / latents) if latents else {}
    pictures = None if images is None else tuple(read_picture(folder / name) for name in images)
    return Sample(key, pictures, arrays.get("latents"), arrays.get("trajectory"))


def read_latents(path: Path) -> dict[str, Array]:
    """Read the float32 arrays ``latents`` (B,C,H,W) and ``trajectory`` (T,B,C,H,W) of a safetensors file.

    Raises
    ------
    FileError
        If it is missing or damaged, or an array is of another type or number of dimensions.
    """
    try:
        arrays = {name: array for name, array in load_file(path).items() if name in DIMENSIONS}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise FileError(f"{path}: is no whole safetensors file ({error})") from None
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != DIMENSIONS[name]:
            raise FileError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}; float32 of {DIMENSIONS[name]} dimensions "
                "is expected"
            )
    return arrays


def read_picture(path: Path) -> Array:
    """Read a picture as uint8 ``H,W,3``.

    Raises
    ------
    FileError
        If it is missing or damaged, or a decompression bomb.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_PX:
                raise ValueError(f"{image.width}x{image.height} pixels, more than any size that can be drawn")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Warning) as error:
        raise FileError(f"{path}: is no whole picture ({error})") from None


def check_file(path: Path, recorded: Recorded | None) -> None:
    """Check a picture or a safetensors file against what was recorded of it, or read it where nothing was.

    Raises
    ------
    FileError
        If it is damaged.
    """
    if recorded is None:
        read_picture(path) if path.suffix == ".png" else read_latents(path)
    elif (size := path.stat().st_size) != recorded.size_bytes:
        raise FileError(f"{path}: holds {size} bytes, and {recorded.size_bytes} were recorded of it")
    elif files.sha256(path) != recorded.sha256:
        raise FileError(f"{path}: holds other content than was recorded of it")
