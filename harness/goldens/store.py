"""Interface of a golden store.

Every store holds the same tree, ``MODEL/PLATFORM/CASE/golden.json`` with the files it names beside it, so that one
can be copied to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.goldens.golden import Golden
from harness.types import digest_of

Make = Callable[[Path], object]
"""Writes a golden into the folder it is given."""


@dataclass(frozen=True)
class Look:
    """Goldens found in a store at one moment."""

    descriptions: Mapping[str, str]
    """``MODEL/PLATFORM/CASE`` to the SHA-256 of its ``golden.json``, which holds those of all other files."""

    @property
    def digest(self) -> str:
        """One digest over all of them, the value of ``golden_digest``."""
        return f"sha256:{digest_of(dict(self.descriptions))}"


class Store(Protocol):
    """Golden store; a golden is addressed by ``MODEL/PLATFORM/CASE``."""

    shared: bool
    """Whether several projects may use the store, so that an unneeded golden is no error."""

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Find the goldens of some ``MODEL/CASE`` on every platform; may return an earlier look if not ``fresh``."""

    def read(self, address: str) -> Golden:
        """Read the description of a golden that a look found."""

    def fetch(self, address: str) -> Path:
        """Return the folder on this machine that holds a golden; an empty or absent one where there is none."""

    def write(self, address: str, make: Make) -> None:
        """Put a golden in place of what was there."""

    def name(self, address: str) -> str:
        """Return the path or URL of an address, for messages."""

    def everything(self) -> set[str]:
        """Return the addresses of all goldens."""

    def problems(self, address: str) -> Iterator[str]:
        """Read a golden completely and yield a line for each problem."""
