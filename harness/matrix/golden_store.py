"""Names of a golden store, and of models in it, as a matrix file determines them; no store is opened."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import ConfigError, did_you_mean
from harness.types import Case


def is_url(place: str) -> bool:
    """Tell ``s3://bucket/goldens`` from a folder."""
    return "://" in place


def check_protocol(url: str) -> None:
    """Refuse a URL whose protocol fsspec does not know; its package need not be installed.

    Raises
    ------
    ConfigError
        Naming what was probably meant.
    """
    import fsspec

    known = fsspec.available_protocols()
    for protocol in url.partition("://")[0].split("::"):
        if protocol not in known:
            usual = [name for name in ("s3", "gs", "hf", "abfs", "file") if name in known]
            hint = did_you_mean(protocol, known) if len(protocol) > 2 else did_you_mean("", usual)
            raise ConfigError(f"{url!r}: no file system is called {protocol!r}; {hint}")


def slug(text: str) -> str:
    """Turn a model's or device's name into a folder name.

    >>> slug("Tongyi-MAI/Z-Image-Turbo")
    'tongyi-mai--z-image-turbo'
    """
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower().replace("/", "--")).strip("-.") or "model"


def model_of(case: Case) -> str:
    """Name a case's model as a store does; a local model goes by its folder's last name."""
    return slug(Path(case.model).name if Path(case.model).is_absolute() else case.model.lstrip("./"))


def key_of(case: Case) -> str:
    """Name a case in a store on whatever platform, ``MODEL/CASE``."""
    return f"{model_of(case)}/{case.key}"
