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
    """Goldens that were found at one moment."""

    descriptions: Mapping[str, str]
    """``MODEL/PLATFORM/CASE`` to the SHA-256 of its ``golden.json``, which holds those of all other files."""

    @property
    def digest(self) -> str:
        """One digest over all of them, the value of ``golden_digest``."""
        return f"sha256:{digest_of(dict(self.descriptions))}"


class Store(Protocol):
    """Golden store; a golden is addressed by ``MODEL/PLATFORM/CASE``."""

    shared: bool
    """Whether others keep goldens here too, so that one nobody asks for is no mistake."""

    def look(self, wanted: Iterable[str], fresh: bool = True) -> Look:
        """Find the goldens of some ``MODEL/CASE`` on every platform; an older look may do if not ``fresh``."""

    def read(self, address: str) -> Golden:
        """Read the description of a golden that was seen."""

    def fetch(self, address: str) -> Path:
        """Return the folder on this machine that holds a golden; an empty or absent one where there is none."""

    def write(self, address: str, make: Make) -> None:
        """Put a golden in place of what was there."""

    def name(self, address: str) -> str:
        """Return an address as a person finds it."""

    def everything(self) -> set[str]:
        """Return the addresses of all goldens."""

    def problems(self, address: str) -> Iterator[str]:
        """Read a golden to the last byte and say what is wrong with it."""
