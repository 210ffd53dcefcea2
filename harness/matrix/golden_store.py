"""Golden stores as a matrix names them: URL or folder, and the names of models and cases in it."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import ConfigError, did_you_mean
from harness.types import Case


def is_url(place: str) -> bool:
    """Whether a store is a URL such as ``s3://bucket/goldens``; else it is a folder."""
    return "://" in place


def check_protocol(url: str) -> None:
    """Refuse a URL whose protocol fsspec does not know; its package need not be installed.

    Raises
    ------
    ConfigError
        With the closest known protocol.
    """
    import fsspec

    known = fsspec.available_protocols()
    for protocol in url.partition("://")[0].split("::"):
        if protocol not in known:
            usual = [name for name in ("s3", "gs", "hf", "abfs", "file") if name in known]
            hint = did_you_mean(protocol, known) if len(protocol) > 2 else did_you_mean("", usual)
            raise ConfigError(f"{url!r}: no file system is called {protocol!r}; {hint}")


def slug(text: str) -> str:
    """Convert a model's or device's name to a folder name.

    >>> slug("Tongyi-MAI/Z-Image-Turbo")
    'tongyi-mai--z-image-turbo'
    """
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower().replace("/", "--")).strip("-.") or "model"


def model_of(case: Case) -> str:
    """Return a case's model as a folder name; of a local model, the last part of its path."""
    return slug(Path(case.model).name if Path(case.model).is_absolute() else case.model.lstrip("./"))


def key_of(case: Case) -> str:
    """Return ``MODEL/CASE``, a case in a store without its platform."""
    return f"{model_of(case)}/{case.key}"
