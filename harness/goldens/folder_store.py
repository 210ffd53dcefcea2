"""Golden store in a folder of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.errors import FileError, GoldenError
from harness.goldens import golden
from harness.goldens.golden import DESCRIPTION, Golden, sha256
from harness.goldens.store import Look, Make


class FolderStore:
    """Golden store in a folder."""

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
        path = self._root / address / DESCRIPTION
        return golden.parse(path.read_bytes(), str(path))

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
        """Return every folder with a ``golden.json``."""
        found = self._root.rglob(DESCRIPTION) if self._root.is_dir() else ()
        return {path.parent.relative_to(self._root).as_posix() for path in found}

    def problems(self, address: str) -> Iterator[str]:
        """Name altered files, and files that belong to no golden."""
        folder = self._root / address
        try:
            known = golden.load(folder, address)
            if known:
                golden.load_sample(folder, known)
        except (GoldenError, FileError) as error:
            yield f"altered: {error}"
            return
        unknown = {file.name for file in folder.iterdir()} - {*(known.files if known else ()), DESCRIPTION}
        yield from (f"unused: {folder / name}" for name in sorted(unknown))
