"""``sp-harness rerun``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import Python, RunPath, echo
from harness.cli.run import compute, created
from harness.errors import EXIT_OK
from harness.types import Outcome

app = typer.Typer()

FAILED = frozenset({Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT, None})
"""Outcomes drawn anew by ``--failed``; ``None``: not judged. What lacks a golden lacks an approval."""


@app.command(epilog="Example: `sp-harness rerun reports/pr-20260101-120000 --failed`")
def rerun(
    run_folder: RunPath,
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that fail, break or were not judged.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where the new run folder goes; beside RUN by default.")] = None,
    python: Python = None,
) -> None:
    """Draw the rows of a run anew, by the code of now, into a run folder of their own."""
    from harness.execution import executor as executors
    from harness.goldens import for_run
    from harness.goldens.pin import known_digests
    from harness.matrix import selection
    from harness.matrix.loader import current_pin, known_interpreters, with_interpreters
    from harness.runs.folder import RunFolder, read_report
    from harness.session import steps

    folder = RunFolder.open(run_folder)
    plan = folder.plan
    matrix = plan.matrix
    if failed:
        rows = read_report(run_folder).rows
        wanted = [row.name for row in rows if (row.verdict.outcome if row.verdict else None) in FAILED and not row.skip]
        if not wanted:
            echo(f"{run_folder}: no row fails; nothing is drawn")
            raise typer.Exit(EXIT_OK)
        matrix = selection.rows_named(matrix, wanted)
        echo(f"{len(wanted)} of {len(rows)} rows are drawn anew")
    matrix = with_interpreters(matrix, known_interpreters(matrix, python or ()), python or ())
    if plan.golden == "required":
        for_run.fetch(matrix, known_digests(folder, current_pin(matrix)))
    anew = created(out or run_folder.absolute().parent, matrix, steps.plan(matrix), plan.golden, None)
    raise typer.Exit(compute(anew, executors.maker("local", None)) if anew else EXIT_OK)
