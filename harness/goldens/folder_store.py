"""Where goldens are kept: a folder, or an fsspec URL that is read through a local cache.

Both hold the same tree, ``MODEL/PLATFORM/CASE/golden.json`` with the files it names beside it, so that one
can be copied to the other. The URL's side is in ``store_url.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from harness import codec
from harness.errors import FileError, GoldenError
from harness.goldens import golden
from harness.goldens.golden import DESCRIPTION, Golden, sha256
from harness.types import SCHEMA, digest_of

Make = Callable[[Path], object]
"""Writes a golden into the folder it is given."""


@dataclass(frozen=True)
class Look:
    """The goldens that were found at one moment."""

    descriptions: Mapping[str, str]
    """``MODEL/PLATFORM/CASE`` to the SHA-256 of its ``golden.json``, which holds those of all other files."""

    @property
    def digest(self) -> str:
        """What ``golden_digest`` pins: one digest over all of them."""
        return f"sha256:{digest_of(dict(self.descriptions))}"


class Store(Protocol):
    """What both kinds of store do. A golden is addressed by ``MODEL/PLATFORM/CASE``."""

    shared: bool
    """Whether others keep goldens here too, so that one nobody asks for is no mistake."""

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Find the goldens of some ``MODEL/CASE`` on every platform; an older look may do if not ``fresh``."""

    def read(self, address: str) -> Golden:
        """Read the description of a golden that was seen."""

    def fetch(self, address: str) -> Path:
        """Folder on this machine that holds a golden; an empty or absent one where there is none."""

    def write(self, address: str, make: Make) -> None:
        """Put a golden in place of what was there."""

    def name(self, address: str) -> str:
        """Address as a person finds it."""

    def everything(self) -> set[str]:
        """Addresses of all goldens."""

    def problems(self, address: str) -> Iterator[str]:
        """Read a golden to the last byte and say what is wrong with it."""


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
    from harness.goldens.url_store import UrlStore

    return UrlStore(place, cache)


def is_url(place: str) -> bool:
    """Tell ``s3://bucket/goldens`` from a folder."""
    return "://" in place


class FolderStore:
    """A folder on this machine."""

    shared = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Find goldens; a folder is always read anew."""
        found = {}
        for model, _, key in (entry.partition("/") for entry in sorted(set(wanted))):
            for path in sorted(self._root.glob(f"{model}/*/{key}/{DESCRIPTION}")):
                found[path.parent.relative_to(self._root).as_posix()] = sha256(path.read_bytes())
        return Look(found)

    def read(self, address: str) -> Golden:
        """Read a ``golden.json``."""
        return codec.read_json(self._root / address / DESCRIPTION, Golden, SCHEMA)

    def fetch(self, address: str) -> Path:
        """Return the golden's own folder."""
        return self._root / address

    def write(self, address: str, make: Make) -> None:
        """Write in place; :func:`harness.goldens.golden.write` replaces a folder as a whole."""
        make(self._root / address)

    def name(self, address: str) -> str:
        """Return the golden's folder."""
        return str(self._root / address)

    def everything(self) -> set[str]:
        """Every folder with a ``golden.json``."""
        found = self._root.rglob(DESCRIPTION) if self._root.is_dir() else ()
        return {path.parent.relative_to(self._root).as_posix() for path in found}

    def problems(self, address: str) -> Iterator[str]:
        """Name altered files, and files that belong to no golden."""
        folder = self._root / address
        try:
            known = golden.load(folder)
        except (GoldenError, FileError) as error:
            yield f"altered: {error}"
            return
        strangers = {file.name for file in folder.iterdir()} - {*(known.files if known else ()), DESCRIPTION}
        yield from (f"unused: {folder / name}" for name in sorted(strangers))


def verify(store: Store, wanted: set[str], found: set[str], is_all: bool = True) -> Iterator[str]:
    """Yield a line for each golden that is missing, unused, or altered.

    Parameters
    ----------
    store
        The golden store.
    wanted
        Addresses that the known matrices ask for.
    found
        Addresses of theirs that the store was seen to hold, on any platform.
    is_all
        Whether nobody else asks for goldens here, so that one that is not asked for is unused.
    """
    yield from (f"missing: {store.name(address)}" for address in sorted(wanted - found))
    strangers = store.everything() - wanted - found if is_all and not store.shared else set()
    yield from (f"unused: {store.name(address)}" for address in sorted(strangers))
    for address in sorted(found | strangers):
        yield from store.problems(address)
