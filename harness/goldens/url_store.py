"""Goldens at an fsspec URL: ``s3://``, ``gs://``, ``hf://``, ``file://``, ...

A golden exists while its ``golden.json`` does. That file is deleted first and uploaded last when a golden is
replaced, so that a reader finds a whole golden or none, although object stores have no transactions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from harness import files
from harness.errors import ConfigError, FileError, GoldenError, HarnessError, InfrastructureError
from harness.goldens import golden
from harness.goldens.golden import DESCRIPTION, REMEDY, Golden, sha256
from harness.goldens.store import Look, Make
from harness.matrix.golden_store import check_protocol
from harness.scratch import scratch

AT_ONCE = 8
"""Number of files read concurrently."""


class UrlStore:
    """Golden store at an fsspec URL; goldens are copied once into a cache addressed by content."""

    shared = True

    def __init__(self, url: str, cache: Path) -> None:
        self._url = url.rstrip("/")
        self._cache = cache / "goldens"
        self._fs, self._root = _file_system(self._url)
        self._seen: dict[str, bytes] = {}
        self._looks: dict[tuple[str, ...], Look] = {}
        self._altered: dict[str, GoldenError] = {}

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Read the ``golden.json`` of every golden that is wanted."""
        key = tuple(sorted(set(wanted)))
        if fresh or key not in self._looks:
            self._looks[key] = self._look(key)
        return self._looks[key]

    def read(self, address: str) -> Golden:
        """Parse a ``golden.json`` that a look found."""
        return golden.parse(self._seen[address], f"{self.name(address)}/{DESCRIPTION}")

    def fetch(self, address: str) -> Path:
        """Copy a golden into the cache, if it is not there, and return its folder.

        After a golden was fetched, or found altered, there is no request for it until the next look.
        """
        text = self._seen.get(address)
        if text is None:
            return self._cache / "none"
        if address in self._altered:
            raise self._altered[address]
        folder = self._cache / sha256(text)[:32]
        if not _is_whole(folder, address):
            try:
                self._download(address, folder)
            except GoldenError as error:
                self._altered[address] = error
                raise
        return folder

    def write(self, address: str, make: Make) -> None:
        """Build a golden locally, then upload it with its description last."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "golden"
            make(folder)
            self._forget()
            with self._explained("written", "; nothing half is left there, approve again"):
                self._upload(address, sorted(folder.iterdir(), key=lambda file: file.name == DESCRIPTION))

    def name(self, address: str) -> str:
        """Return the golden's URL."""
        return f"{self._url}/{address}"

    def everything(self) -> set[str]:
        """Return nothing: goldens of other projects are not counted."""
        return set()

    def problems(self, address: str) -> Iterator[str]:
        """Download a golden anew and name what is altered."""
        with self._scratch() as building:
            try:
                self._fill(building, address)
                if known := golden.load(building, address):
                    golden.load_sample(building, known)
            except (GoldenError, FileError) as error:
                yield f"altered: {error}"

    def _look(self, wanted: Iterable[str]) -> Look:
        models: dict[str, set[str]] = {}
        for model, _, key in (entry.partition("/") for entry in wanted):
            models.setdefault(model, set()).add(key)
        with self._explained("read"):
            self._fs.invalidate_cache()
            addresses = [
                f"{model}/{platform}/{key}"
                for model, keys in sorted(models.items())
                for platform in self._names(model)
                for key in sorted(keys & set(self._names(f"{model}/{platform}")))
            ]
            with ThreadPoolExecutor(AT_ONCE) as readers:
                texts = dict(zip(addresses, readers.map(self._description, addresses), strict=True))
        found = {address: text for address, text in texts.items() if text is not None}
        self._seen.update(found)
        self._altered.clear()
        return Look({address: sha256(text) for address, text in found.items()})

    def _names(self, folder: str) -> list[str]:
        """List the names in a folder; none where it does not exist, as in a new store."""
        try:
            paths = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(PurePosixPath(path).name for path in paths)

    def _description(self, address: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{address}/{DESCRIPTION}"))
        except FileNotFoundError:
            return None

    def _download(self, address: str, folder: Path) -> None:
        """Copy a golden whose ``golden.json`` a look found, atomically and by one process at a time."""
        from filelock import FileLock

        with self._caching(), FileLock(self._cache / f".{folder.name}.lock", mode=0o666):
            if not _is_whole(folder, address):  # else copied by another process, which may be reading it
                with files.replacing(folder) as building:
                    self._fill(building, address)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Provide an empty temporary folder on the cache's file system."""
        with (
            self._caching(),
            scratch(".scratch-", self._cache) as folder,
        ):
            yield folder

    @contextmanager
    def _caching(self) -> Iterator[None]:
        with files.writing(self._cache, "see SP_HARNESS_CACHE", InfrastructureError):
            self._cache.mkdir(parents=True, exist_ok=True)
            yield

    def _fill(self, folder: Path, address: str) -> None:
        """Write a golden into an empty folder, checking every file against its digest."""
        (folder / DESCRIPTION).write_bytes(self._seen[address])
        for name, expected in self.read(address).files.items():
            (folder / name).write_bytes(self._checked(address, name, expected))

    def _checked(self, address: str, name: str, expected: str) -> bytes:
        place = f"{self.name(address)}/{name}"
        if PurePosixPath(name).name != name:
            raise GoldenError(f"{place}: is no plain file name; approve the case anew")
        with self._explained("read"):
            try:
                content = bytes(self._fs.cat_file(f"{self._root}/{address}/{name}"))
            except FileNotFoundError:
                raise GoldenError(f"{place}: is missing; {REMEDY}") from None
        if sha256(content) != expected:
            raise GoldenError(f"{place}: does not match its digest in {DESCRIPTION}; {REMEDY}")
        return content

    def _upload(self, address: str, files: list[Path]) -> None:
        folder = f"{self._root}/{address}"
        old = self._names(address)
        for name in sorted(old, key=lambda name: name != DESCRIPTION):
            self._fs.rm_file(f"{folder}/{name}")
        for file in files:
            try:
                self._fs.put_file(str(file), f"{folder}/{file.name}")
            except FileNotFoundError:
                if not self._fs.exists(PurePosixPath(self._root or "/").parts[0]):
                    raise  # buckets are created by their owner
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.put_file(str(file), f"{folder}/{file.name}")

    def _forget(self) -> None:
        self._seen.clear()
        self._looks.clear()

    @contextmanager
    def _explained(self, done: str, so: str = "") -> Iterator[None]:
        """Turn any exception of a file system plugin into one line; they share no base class."""
        try:
            yield
        except HarnessError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            hint = "check the address, the network and the credentials"
            raise InfrastructureError(f"golden_store {self._url}: cannot be {done} ({what}); {hint}{so}") from None


def _file_system(url: str) -> tuple[Any, str]:
    """Open the fsspec file system of a URL and return it with the path in it."""
    import fsspec
    from fsspec.registry import known_implementations

    check_protocol(url)
    protocol = url.partition("://")[0].split("::")[-1]
    # Object stores have no folders; fsspec's local file system creates them only with this option.
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    try:
        file_system, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package = str(known_implementations.get(protocol, {}).get("class", "")).partition(".")[0] or protocol
        raise ConfigError(f"golden_store {url}: {error}; install it: pip install {package}") from None
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        hint = "check the address and the credentials"
        raise InfrastructureError(f"golden_store {url}: cannot be opened ({what}); {hint}") from None
    return file_system, str(root).rstrip("/")


def _is_whole(folder: Path, address: str) -> bool:
    """Whether a cached copy is undamaged."""
    try:
        return (
            golden.load(folder, address) is not None and sha256((folder / DESCRIPTION).read_bytes())[:32] == folder.name
        )
    except (GoldenError, FileError):
        return False
