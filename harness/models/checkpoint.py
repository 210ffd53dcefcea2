"""A checkpoint as files: which parts it must have, its digest, and how one is published."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.codec import write_json
from harness.errors import ConfigError, UsageError
from harness.scratch import scratch
from harness.types import ModelSpec

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja")
"""Files that decide the picture: weights, configurations, tokenizer. Nothing else is read or fetched."""

_PARTS = {
    "tokenizer": "tokenizer_config.json",
    "text_encoder": "config.json",
    "transformer": "config.json",
    "scheduler": "scheduler_config.json",
    "vae": "config.json",
}
_WEIGHTED = ("text_encoder", "transformer", "vae")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def inspect(folder: Path, name: str, memo: Path) -> ModelSpec:
    """Check a folder in Hugging Face layout and describe it.

    Parameters
    ----------
    folder : Path
        Holds ``model_index.json`` and one folder for each part.
    name : str
        What to call it.
    memo : Path
        File that remembers digests of files that have not changed since.

    Raises
    ------
    ConfigError
        If a part is missing, of another kind than Z-Image's, or has no weights in safetensors.
    """
    check(folder)
    config = folder / "transformer" / "config.json"
    declared = _read(config)
    heads, lengths = declared.get("n_heads"), declared.get("axes_lens", [])
    if not isinstance(heads, int) or heads < 1:
        raise ConfigError(f"{config}: key 'n_heads' is missing or no positive number")
    if not isinstance(lengths, list) or not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ConfigError(f"{config}: key 'axes_lens' is no list of positive numbers")
    return ModelSpec(
        name=name,
        path=str(folder.absolute()),
        weights=digest(folder, memo),
        num_heads=heads,
        most_tokens=(lengths[1], lengths[2]) if len(lengths) == 3 else None,  # the first is of captions and frames
    )


def check(folder: Path) -> None:
    """Raise :class:`ConfigError` naming the first part that is missing or must not be loaded."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ConfigError(f"model folder {folder} lacks model_index.json; give a folder in Hugging Face layout")
    declared = _read(index)
    if declared.get("_class_name") != "ZImagePipeline":
        raise ConfigError(f"{index}: _class_name is {declared.get('_class_name')!r}; known: 'ZImagePipeline'")
    for part, config in _PARTS.items():
        library = declared.get(part)
        if not isinstance(library, list) or library[:1] not in (["diffusers"], ["transformers"]):
            raise ConfigError(f"{index}: {part!r} must name a class of diffusers or transformers; no other code is run")
        if not (folder / part / config).is_file():
            raise ConfigError(f"model folder {folder} lacks its part {part} ({part}/{config}); download it whole")
    for part in _WEIGHTED:
        _check_weights(folder / part)


def _check_weights(part: Path) -> None:
    files = {path.name for path in part.iterdir()}
    if not any(name.endswith(".safetensors") for name in files):
        pickled = sorted(name for name in files if name.endswith(_PICKLES))
        if pickled:
            raise ConfigError(
                f"{part / pickled[0]}: weights are read from safetensors alone, never pickle; convert them with "
                f"save_pretrained(..., safe_serialization=True)"
            )
        raise ConfigError(f"model folder {part.parent} lacks the weights of {part.name} (*.safetensors)")
    for index in part.glob("*.safetensors.index.json"):
        shards = _read(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise ConfigError(f"{index}: key 'weight_map' is missing or does not map weights to files")
        for shard in sorted(set(shards.values())):
            if shard not in files:
                raise ConfigError(f"model folder {part.parent} lacks {part.name}/{shard}, named in {index.name}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold a JSON object")
    return data


# ---------------------------------------------------------------- digest


def digest(folder: Path, memo: Path) -> str:
    """SHA-256 over names and contents of all files that decide the picture.

    A file whose path, size and time of change are those in ``memo`` is not read again: a released
    checkpoint has 20 GB. A memo that cannot be read or written costs time, nothing else.
    """
    known = _remembered(memo)
    found: dict[str, Any] = {}
    total = hashlib.sha256()
    for path in _deciding_files(folder):
        stat = path.stat()
        key = str(path.resolve())
        state = [stat.st_size, stat.st_mtime_ns]
        entry = known.get(key)
        if not (isinstance(entry, list) and len(entry) == 3 and entry[:2] == state):
            with path.open("rb") as file:
                entry = [*state, hashlib.file_digest(file, "sha256").hexdigest()]
        found[key] = entry
        total.update(f"{path.relative_to(folder).as_posix()}\0{entry[2]}\n".encode())
    if any(known.get(key) != entry for key, entry in found.items()):
        _remember(memo, known | found)
    return total.hexdigest()


def _deciding_files(folder: Path) -> Iterator[Path]:
    yield folder / "model_index.json"
    for part in sorted(_PARTS):
        yield from sorted({path for pattern in PATTERNS for path in (folder / part).rglob(pattern)})


def _remembered(memo: Path) -> dict[str, Any]:
    try:
        data = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _remember(memo: Path, entries: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        write_json(memo, {key: entry for key, entry in entries.items() if Path(key).exists()})


# ---------------------------------------------------------------- publishing


def publish(
    target: Path,
    write: Callable[[Path], None],
    is_current: Callable[[Path], bool],
    is_ours: Callable[[Path], bool],
) -> Path:
    """Fill a folder so that others see it whole or not at all.

    Parameters
    ----------
    target : Path
        The folder to end up with; returned untouched if ``is_current`` says so.
    write : callable
        Fills an empty folder.
    is_current, is_ours : callable
        Whether a folder holds just this model; whether it may be replaced.

    Raises
    ------
    UsageError
        If the folder holds something that is not ours, or cannot be written.
    """
    if is_current(target):
        return target
    if target.exists() and not is_ours(target) and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} exists and holds something else; choose an empty or a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch(f".{target.name}-", target.parent) as temporary:
            fresh = temporary / "new"
            fresh.mkdir()
            write(fresh)
            _swap(fresh, target, temporary / "old", is_current)
    except OSError as error:
        raise UsageError(f"{target}: the model cannot be written there ({error.strerror or error})") from None
    return target


def _swap(fresh: Path, target: Path, aside: Path, is_current: Callable[[Path], bool]) -> None:
    """Rename ``fresh`` to ``target``; another process that gets there first has done our work."""
    for _ in range(10):
        try:
            os.replace(fresh, target)
            return
        except OSError:
            if is_current(target):
                return
            if target.is_dir() and not aside.exists():
                try:
                    target.rename(aside)
                except FileNotFoundError:
                    continue
            elif aside.exists():
                shutil.rmtree(aside)
            else:
                raise
    raise UsageError(f"{target} is written by others all the time; choose another folder")
