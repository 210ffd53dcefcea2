"""Arrays of a run or a golden, as they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

Array = np.ndarray[Any, Any]


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
    FileNotFoundError
        If a file is missing.
    """
    arrays = load_file(folder / latents) if latents else {}
    pictures = None if images is None else tuple(_read_picture(folder / name) for name in images)
    return Sample(key, pictures, arrays.get("latents"), arrays.get("trajectory"))


def _read_picture(path: Path) -> Array:
    """Read a picture as uint8 ``H,W,3``."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
