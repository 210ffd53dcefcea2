"""Model families: finding, building and loading checkpoints.

A model is a built-in name, a folder in Hugging Face layout, or a hub id with a revision;
:func:`resolve` turns each into a :class:`~harness.types.ModelSpec`. Module level imports are standard
library and harness only: the command line loads this package at its start.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import ConfigError, InfrastructureError, UsageError, did_you_mean
from harness.models import checkpoint, full_size, nano
from harness.types import ModelSpec

__all__ = ["build", "cache_dir", "names", "resolve", "resolve_planned"]

SHIPPED = Path(__file__).parent / "checkpoints" / "nano"
"""The trained model, part of the package."""

_WITHOUT_FILES = {
    "fake": ModelSpec(name="fake", path="", weights="fake", num_heads=6),
    full_size.NAME: ModelSpec(
        name=full_size.NAME,
        path=full_size.PATH,
        weights=f"{full_size.NAME}-{full_size.SEED}",
        num_heads=full_size.TRANSFORMER["n_heads"],
        most_tokens=tuple(full_size.TRANSFORMER["axes_lens"][1:]),
    ),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def names() -> list[str]:
    """Built-in model names.

    ``nano`` is shipped and draws; ``nano-random``, the same shape with random weights, is built at first use;
    ``z-image-random``, the released size, is made on the device that draws; ``fake`` has nothing to load.
    """
    return [*_WITHOUT_FILES, "nano", "nano-random"]


def cache_dir() -> Path:
    """Folder for what can be made again: ``$SP_HARNESS_CACHE``, else ``sp-harness`` in the user's cache."""
    own = os.environ.get("SP_HARNESS_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sp-harness"


def resolve(model: str, revision: str | None = None) -> ModelSpec:
    """Find a checkpoint and read what planning must know of it.

    Parameters
    ----------
    model : str
        One of :func:`names`; a folder (relative ones are taken from the working directory); or a hub id
        ``org/name``. A folder that exists wins over a hub id.
    revision : str, optional
        Branch, tag or commit of a hub id.

    Returns
    -------
    ModelSpec
        With the folder, the digest of the files that decide the picture, and the number of heads.

    Raises
    ------
    ConfigError
        If the name is unknown, or the folder lacks a part or holds pickled weights.
    InfrastructureError
        If the hub cannot be reached; says what to download and where to put it.
    """
    folder = Path(model).expanduser()
    builtin = model in names()
    if revision and (builtin or folder.is_dir()):
        raise ConfigError(f"model {model!r} is not from the hub and has no revision; remove 'revision'")
    if model in _WITHOUT_FILES:
        return _WITHOUT_FILES[model]
    if model == "nano":
        folder = SHIPPED
    elif builtin:
        folder = build(model)
    elif model and folder.is_dir():
        model = folder.resolve().name
    elif _HUB_ID.fullmatch(model):
        folder = _download(model, revision)
    else:
        raise _not_found(model)
    return checkpoint.inspect(folder, model, memo=cache_dir() / "digests.json")


def resolve_planned(model: str, revision: str | None, path: str, weights: str) -> ModelSpec:
    """Find here the checkpoint with which another machine has planned.

    Parameters
    ----------
    model, revision
        As for :func:`resolve`. A built-in model is found, or built, where this machine keeps its own.
    path, weights
        Where it lies there, and its digest. Any other folder, the hub's cache too, is looked for at the same place.

    Raises
    ------
    InfrastructureError
        If the weights are others; and as :func:`resolve` does.
    """
    elsewhere = model in names() or not Path(path).is_dir()
    found = resolve(model, revision) if elsewhere else resolve(path)
    if found.weights != weights:
        is_built = model == "nano-random"
        cure = f"remove {found.path}, it is then built anew" if is_built else "put the same checkpoint on every node"
        both = f"{_described(found.weights, found.path)}, planned {_described(weights, path)}"
        raise InfrastructureError(f"its weights of {model} are others ({both}); {cure}")
    return found


def _described(weights: str, path: str) -> str:
    digest = weights[:16]  # as long as digests of runs are; what a model without files has in its place fits, too
    return f"{digest} in {path}" if path else digest


def build(name: str, folder: Path | None = None) -> Path:
    """Write a built-in model, if it is not there already.

    Parameters
    ----------
    name : str
        Only ``nano-random`` has files to build.
    folder : Path, optional
        Where to; the cache folder by default. A folder that holds an older ``nano-random`` is replaced.

    Returns
    -------
    Path
        The folder, complete: it is filled under another name and then renamed, so that a reader, or a
        second builder at the same time, never sees half of it.

    Raises
    ------
    UsageError
        If there is no such model, or the folder holds something else or cannot be written.
    """
    if name == "nano":
        raise UsageError(f"model 'nano' is shipped in {SHIPPED}; there is nothing to build")
    if name in _WITHOUT_FILES:
        raise UsageError(f"model {name!r} has no files; there is nothing to build")
    if name != "nano-random":
        raise UsageError(f"there is no model {name!r} to build; {did_you_mean(name, ['nano-random'])}")
    # The recipe is part of the cached name: another version of the harness keeps its own copy.
    target = folder or cache_dir() / "models" / f"nano-random-{nano.recipe()}"
    return checkpoint.publish(target, nano.write, nano.is_current, nano.is_ours)


def _not_found(model: str) -> ConfigError:
    if os.sep in model or model.startswith((".", "~")):
        return ConfigError(f"model {model!r}: there is no such folder; give a folder in Hugging Face layout")
    return ConfigError(
        f"model {model!r} is neither built in, nor a folder, nor a hub id 'org/name'; {did_you_mean(model, names())}"
    )


def _download(repo: str, revision: str | None) -> Path:
    """Fetch a hub checkpoint, or find it in the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(checkpoint.PATTERNS)))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"revision {revision!r}" if isinstance(error, RevisionNotFoundError) else "such model"
        raise ConfigError(
            f"model {repo!r}: there is no folder of this name, and the hub has no {what} that you may read; "
            f"check the spelling, or log in with `hf auth login`"
        ) from None
    # Whatever else stands between us and the hub (no network, a proxy, offline mode, a full disk) has one cure.
    except Exception as error:
        reason = " ".join(str(error).split())[:90]
        at = f" --revision {revision}" if revision else ""
        raise InfrastructureError(
            f"model {repo!r} cannot be downloaded; where the hub can be reached run `hf download {repo}{at} "
            f'--local-dir DIR`, copy DIR to this machine and write `model = "DIR"` ({reason} ...)'
        ) from None
