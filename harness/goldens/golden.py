"""Golden outputs: approved pictures of the baseline, and what each variant may differ by.

``golden/MODEL/PLATFORM/CASE/`` holds ``golden.json``, ``latents.safetensors`` and the pictures, whole and lossless
(``image.png``, ``image-1.png``, ...). Goldens are written by ``approve`` alone. Earlier versions kept large pictures
reduced (``image-reduced.png``, for the eye alone); such goldens are compared by their latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from safetensors.numpy import save_file

from harness import codec, files
from harness.errors import FileError, GoldenError, NewerSchemaError
from harness.matrix.golden_store import model_of, slug
from harness.runs import sample
from harness.runs.sample import Sample
from harness.types import SCHEMA, Case, Run, is_plain_name

DESCRIPTION = "golden.json"
LATENTS = "latents.safetensors"
PIXELS_PER_CELL = 8
"""Of latents, along each side."""
REMEDY = "restore it, or approve the case anew"


@dataclass(frozen=True)
class Golden:
    """``golden.json``: case, platform, approved figures and provenance."""

    case: Case
    platform: str
    weights: str
    files: Mapping[str, str]
    """SHA-256 of every file beside this one."""
    approved: Mapping[str, Mapping[str, float | None]]
    """Variant label to latents PSNR in dB of ``pair`` and ``layout``; null means equal to the last bit."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def platform_of(case: Case, versions: Mapping[str, str]) -> str:
    """Return the platform a picture is valid for: ``cpu-float32``, ``cuda-nvidia-h200-bfloat16``."""
    device = versions.get("device", "")
    return "-".join(part for part in (case.device, slug(device) if device else "", case.dtype) if part)


def address_of(case: Case, platform: str) -> str:
    """Return the address of a case's golden in a store, ``MODEL/PLATFORM/CASE``."""
    return f"{model_of(case)}/{platform}/{case.key}"


def folder_of(store: Path, case: Case, platform: str) -> Path:
    """Return the folder of a case's golden below ``store``."""
    return store / address_of(case, platform)


def parse(text: bytes, name: str) -> Golden:
    """Make a golden's description of the content of its ``golden.json``, which ``name`` names in errors.

    Raises
    ------
    GoldenError
        If it is none.
    FileError
        If it is of a newer schema.
    """
    with _altered():
        return codec.parse_json(text, name, Golden, SCHEMA)


def load(folder: Path, address: str | None = None) -> Golden | None:
    """Read a golden's description; ``None`` if there is no golden.

    Parameters
    ----------
    folder
        Its folder.
    address
        Address in a store that it has to be of.

    Raises
    ------
    GoldenError
        If it is that of another case or platform, or if a file is missing or differs from its recorded digest.
    FileError
        If it is of a newer schema.
    """
    if not (folder / DESCRIPTION).is_file():
        return None
    golden = parse((folder / DESCRIPTION).read_bytes(), str(folder / DESCRIPTION))
    if address not in (None, own := address_of(golden.case, golden.platform)):
        raise GoldenError(f"{folder / DESCRIPTION}: is of {own}, and {address} is expected; {REMEDY}")
    for name, expected in golden.files.items():
        path = folder / name
        if not is_plain_name(name):
            raise GoldenError(f"{folder / DESCRIPTION}: file {name!r} leads elsewhere; {REMEDY}")
        if not path.is_file():
            raise GoldenError(f"{path}: is missing; {REMEDY}")
        if sha256(path.read_bytes()) != expected:
            raise GoldenError(f"{path}: does not match its digest in {DESCRIPTION}; {REMEDY}")
    return golden


def sample_key(case: Case) -> str:
    """Return the key of a case's golden as a sample."""
    return f"golden:{case.key}"


def is_whole(golden: Golden) -> bool:
    """Whether a golden holds its pictures whole, so that PSNR and SSIM of pictures can be measured."""
    return all(name in golden.files for name in _picture_names(golden.case.num_images))


def load_sample(folder: Path, golden: Golden) -> Sample:
    """Load the sample of a golden; pictures are ``None`` where only reduced ones are kept.

    Raises
    ------
    GoldenError
        If a file cannot be read, or does not hold what the case draws, whatever its digest says.
    """
    case = golden.case
    names = _picture_names(case.num_images) if is_whole(golden) else None
    reduced = [name.replace("image", "image-reduced") for name in _picture_names(case.num_images)]
    if lacking := [name for name in (LATENTS, *(names or reduced)) if name not in golden.files]:
        raise GoldenError(f"{folder / DESCRIPTION}: names no {lacking[0]}; {REMEDY}")
    with _altered():
        found = sample.load_sample(sample_key(case), folder, names, LATENTS)
    side = (case.size.height_px // PIXELS_PER_CELL, case.size.width_px // PIXELS_PER_CELL)
    shape = None if found.latents is None else found.latents.shape
    if shape is None or (shape[0], *shape[2:]) != (case.num_images, *side):
        wanted = f"{case.num_images} of {side[1]}x{side[0]} cells"
        raise GoldenError(f"{folder / LATENTS}: latents are of shape {shape}, and {wanted} are expected; {REMEDY}")
    for name, picture in zip(names or (), found.images or (), strict=True):
        if picture.shape[:2] != (case.size.height_px, case.size.width_px):
            is_size = f"{picture.shape[1]}x{picture.shape[0]}"
            raise GoldenError(f"{folder / name}: is {is_size} pixels, and {case.size} are expected; {REMEDY}")
    return found


@contextmanager
def _altered() -> Iterator[None]:
    """Turn the error of a damaged file into that of an altered golden; a newer schema is no damage."""
    try:
        yield
    except NewerSchemaError:
        raise
    except FileError as error:
        raise GoldenError(f"{error}; {REMEDY}") from None


def write(
    folder: Path,
    run: Run,
    run_folder: Path,
    approved: Mapping[str, Mapping[str, float | None]],
    platform: str,
    provenance: Mapping[str, str],
) -> Golden:
    """Write a baseline run as a golden, replacing what the folder held.

    Used for proposals in a run folder and, on approval, for the store.
    """
    with files.replacing(folder) as building:
        case = run.spec.case
        latents = sample.read_latents(run_folder / (run.latents or LATENTS))["latents"]
        save_file({"latents": latents}, building / LATENTS)
        for source, name in zip(run.images, _picture_names(case.num_images), strict=True):
            with Image.open(run_folder / source) as image:
                image.save(building / name, optimize=True)
        golden = Golden(
            case=case,
            platform=platform,
            weights=run.spec.weights,
            files={file.name: sha256(file.read_bytes()) for file in sorted(building.iterdir())},
            approved=approved,
            provenance=provenance,
        )
        codec.write_json(building / DESCRIPTION, golden)
    return golden


def _picture_names(count: int) -> list[str]:
    return ["image.png", *(f"image-{index}.png" for index in range(1, count))]


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
