"""Goldens at an fsspec URL: ``s3://``, ``gs://``, ``hf://``, ``file://``, ...

A golden *is* its ``golden.json``: it goes first when a golden is replaced and comes last, so that a reader
meets a whole golden or none, in stores that know no transactions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from harness import codec
from harness.errors import ConfigError, FileError, GoldenError, HarnessError, InfrastructureError
from harness.goldens import golden
from harness.goldens.golden import DESCRIPTION, Golden, sha256
from harness.goldens.store import Look, Make
from harness.matrix.golden_store import check_protocol
from harness.types import SCHEMA

AT_ONCE = 8
"""Files read side by side."""


class UrlStore:
    """A place that fsspec reaches; goldens are copied once into the cache, addressed by their content."""

    shared = True

    def __init__(self, url: str, cache: Path) -> None:
        self._url = url.rstrip("/")
        self._cache = cache / "goldens"
        self._fs, self._root = _file_system(self._url)
        self._seen: dict[str, bytes] = {}
        self._looks: dict[tuple[str, ...], Look] = {}
        self._altered: dict[str, GoldenError] = {}

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Read the ``golden.json`` of every golden that is asked for."""
        key = tuple(sorted(set(wanted)))
        if fresh or key not in self._looks:
            self._looks[key] = self._look(key)
        return self._looks[key]

    def read(self, address: str) -> Golden:
        """Parse a ``golden.json`` that was seen."""
        return codec.parse_json(self._seen[address], f"{self.name(address)}/{DESCRIPTION}", Golden, SCHEMA)

    def fetch(self, address: str) -> Path:
        """Copy a golden into the cache, if it is not there, and return its folder.

        Once a golden was fetched, or found altered, the network is not asked again until the next look.
        """
        text = self._seen.get(address)
        if text is None:
            return self._cache / "none"
        if address in self._altered:
            raise self._altered[address]
        folder = self._cache / sha256(text)[:32]
        if not _is_whole(folder):
            try:
                self._download(address, folder)
            except GoldenError as error:
                self._altered[address] = error
                raise
        return folder

    def write(self, address: str, make: Make) -> None:
        """Make a golden here, then upload it with its description last."""
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
        """Nothing: what others keep here is not counted."""
        return set()

    def problems(self, address: str) -> Iterator[str]:
        """Download a golden anew and name what is altered."""
        with self._scratch() as building:
            try:
                self._fill(building, address)
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
        """What lies in a folder; nothing where there is none: a new store is empty."""
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
        """Make a copy whose ``golden.json`` was seen; all of it or nothing, and one run at a time."""
        from filelock import FileLock

        with self._scratch() as building, FileLock(self._cache / f".{folder.name}.lock", mode=0o666):
            if _is_whole(folder):
                return  # another run was faster, and may be reading it
            self._fill(building, address)
            shutil.rmtree(folder, ignore_errors=True)
            building.replace(folder)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Empty folder on the file system of the cache, for as long as it takes to fill."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache, prefix=".", ignore_cleanup_errors=True) as scratch:
                building = Path(scratch) / "golden"
                building.mkdir()
                yield building
        except OSError as error:
            hint = "see SP_HARNESS_CACHE"
            raise InfrastructureError(f"{self._cache}: cannot be written ({error.strerror or error}); {hint}") from None

    def _fill(self, folder: Path, address: str) -> None:
        """Write a golden into an empty folder, as far as every file is what its description says."""
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
                raise GoldenError(f"{place}: is missing; restore it, or approve the case anew") from None
        if sha256(content) != expected:
            raise GoldenError(f"{place}: does not match its digest in {DESCRIPTION}; restore it, or approve anew")
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
                    raise  # a bucket is for its owner to make
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.put_file(str(file), f"{folder}/{file.name}")

    def _forget(self) -> None:
        self._seen.clear()
        self._looks.clear()

    @contextmanager
    def _explained(self, done: str, so: str = "") -> Iterator[None]:
        """Whatever a file system of others raises becomes one line; their errors share no base class."""
        try:
            yield
        except HarnessError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            hint = "check the address, the network and the credentials"
            raise InfrastructureError(f"golden_store {self._url}: cannot be {done} ({what}); {hint}{so}") from None


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    import fsspec
    from fsspec.registry import known_implementations

    check_protocol(url)
    protocol = url.partition("://")[0].split("::")[-1]
    # Object stores know no folders; of the others, fsspec's local one makes none unasked.
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


def _is_whole(folder: Path) -> bool:
    """Whether a copy in the cache is what it was; one that is not is copied again."""
    try:
        return golden.load(folder) is not None and sha256((folder / DESCRIPTION).read_bytes())[:32] == folder.name
    except (GoldenError, FileError):
        return False
