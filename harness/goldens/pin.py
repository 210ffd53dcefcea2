"""Pins: ``golden_digest``, the digest that the goldens of a matrix in its store have to match."""

from __future__ import annotations

from collections.abc import Collection

from harness import files
from harness.errors import ConfigError
from harness.goldens.store import Look
from harness.matrix.golden_store import is_url
from harness.runs.folder import RunFolder
from harness.types import Matrix

APPROVED = "approved.txt"
"""File of a run folder: digests of the store after each approval of this run, one a line."""


def is_pinned(matrix: Matrix) -> bool:
    """Whether the goldens of a matrix have a pin, or need one as a URL store does."""
    return is_url(matrix.golden_store) or matrix.golden_digest is not None


def check_pin(matrix: Matrix, look: Look, known: Collection[str] = ()) -> None:
    """Check the goldens found in a store against the pin of the matrix.

    Parameters
    ----------
    matrix, look
        The matrix, and its goldens in the store.
    known
        Digests accepted beside the pin.

    Raises
    ------
    ConfigError
        If they differ, or if a URL store has goldens and no pin.
    """
    if look.digest in known:
        return
    where = f"{matrix.path}: golden_store {matrix.golden_store}"
    count = len(look.descriptions)
    if matrix.golden_digest not in (None, look.digest):
        raise ConfigError(
            f"{where} holds {count} goldens of this matrix that come to {look.digest}, but golden_digest says "
            f"{matrix.golden_digest}; restore the store, or write the new digest if a person approved what it holds"
        )
    if matrix.golden_digest is None and is_url(matrix.golden_store) and count:
        raise ConfigError(
            f"{where} holds {count} goldens of this matrix and nothing pins them; if a person approved what it "
            f'holds, write: golden_digest = "{look.digest}"'
        )


def known_digests(folder: RunFolder, pin: str | None) -> set[str]:
    """Collect the digests that the store of a run may match.

    Parameters
    ----------
    folder
        The run: its plan holds the pin at planning time, and ``approved.txt`` those of its approvals.
    pin
        Present pin of the matrix file.
    """
    noted = folder.path / APPROVED
    left = noted.read_text(encoding="utf-8").split() if noted.is_file() else []
    return {digest for digest in (folder.plan.matrix.golden_digest, pin, *left) if digest}


def note_approved(folder: RunFolder, *digests: str) -> None:
    """Append digests of the store after an approval of this run, which later judging and approving accept.

    Raises
    ------
    UsageError
        If the run folder cannot be written.
    """
    noted = folder.path / APPROVED
    with files.writing(folder.path, "copy the run folder first"), noted.open("a", encoding="utf-8") as file:
        file.writelines(f"{digest}\n" for digest in digests)
