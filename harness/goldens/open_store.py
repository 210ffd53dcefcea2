"""Opening of a golden store: a folder, or an fsspec URL that is read through a local cache."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from harness import models
from harness.goldens.folder_store import FolderStore
from harness.goldens.store import Store
from harness.matrix.golden_store import is_url
from harness.types import Matrix


def store_of(matrix: Matrix) -> Store:
    """Open the store of a matrix."""
    return open_store(matrix.golden_store, models.cache_dir())


@lru_cache(maxsize=8)
def open_store(place: str, cache: Path) -> Store:
    """Open a store.

    Parameters
    ----------
    place
        Folder or URL.
    cache
        Folder for copies of what a URL store holds.

    Raises
    ------
    ConfigError
        If no file system goes by the URL's protocol, or its package is not installed.
    """
    if not is_url(place):
        return FolderStore(Path(place))
    from harness.goldens.url_store import UrlStore  # fsspec is slow to import

    return UrlStore(place, cache)
