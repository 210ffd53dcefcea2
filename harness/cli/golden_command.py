"""What ``sp-harness approve`` and ``sp-harness golden`` do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from harness import codec
from harness.errors import EXIT_OK, EXIT_VERDICT, UsageError
from harness.goldens import approve as approval
from harness.goldens.open_store import store_of
from harness.goldens.verify import verify as verify_goldens
from harness.matrix.loader import current_pin, read_matrix
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import SCHEMA, Report


def approve(path: Path, cases: Sequence[str], yes: bool, by: str | None) -> None:
    """Show what approving changes, ask, and write the goldens."""
    folder = RunFolder.open(path)
    result = _judged(folder)
    pending = approval.changes(folder, result, cases)
    for change in pending:
        typer.echo(f"{change.case.name}: {change.what}")
    absent = [] if cases else approval.left_out(folder, result)
    if absent:
        typer.echo(f"left out, their pictures are in the run folder that was packed: {', '.join(absent)}")
    pending = [change for change in pending if change.what != "unchanged"]
    if not pending:
        typer.echo("nothing to approve")
        return
    approval.check_known(folder, current_pin(folder.plan.matrix))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("approving asks for a yes and there is no terminal; look at the changes, then add --yes")
        if not typer.confirm(f"Approve {len(pending)} goldens in {folder.plan.matrix.golden_store}?"):
            typer.echo("nothing approved")
            return
    _write(folder, result, pending, by)


def verify(matrices: Sequence[Path], is_all: bool) -> int:
    """Print what is wrong with the goldens of some matrices, or of all there are."""
    if not matrices:
        raise UsageError("matrices/ holds no matrix; name one: sp-harness golden verify matrices/pr.toml")
    asked, lines = verify_goldens([read_matrix(path) for path in matrices], is_all)
    for line in lines:
        typer.echo(line)
    typer.echo(f"{asked} goldens asked for, {len(lines)} problems")
    return EXIT_VERDICT if lines else EXIT_OK


def _judged(folder: RunFolder) -> Report:
    """Read a run's report; judge anew where it does not speak of the runs that are there.

    The report is enough, and judging anew may be impossible: a run that was packed for a person to look at
    holds the baselines to be approved, and not every picture.
    """
    if (folder.path / "report.json").is_file():
        known = codec.read_json(folder.path / "report.json", Report, SCHEMA)
        if set(known.runs) == set(folder.runs()):
            return known
    return steps.conclude(folder, pinned=False)


def _write(folder: RunFolder, result: Report, pending: Sequence[approval.Change], by: str | None) -> None:
    """Write goldens, and say how the matrix file pins what is there now, also where one could not be written."""
    store = store_of(folder.plan.matrix)
    written = 0
    try:
        for change in pending:
            place = store.name(change.address)
            try:
                approval.approve(folder, result, change, by)
            except OSError as error:
                raise UsageError(f"{place}: cannot be written ({error.strerror}); see golden_store") from None
            written += 1
            typer.echo(f"approved {place}")
    finally:
        digest = approval.pin(folder) if written else None
        if digest:
            typer.echo(f'write into {folder.plan.matrix.path}: golden_digest = "{digest}"')
