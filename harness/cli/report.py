"""``sp-harness report``."""

from __future__ import annotations

import typer

from harness.cli._options import RunPath, echo

app = typer.Typer()


@app.command(epilog="Example: `sp-harness report reports/pr-20260101-120000`")
def report(run_folder: RunPath) -> None:
    """Write all report formats again from a run's report.json."""
    from harness.runs.folder import check_recorded, read_report
    from harness.runs.journal import Journal
    from harness.session import steps

    found = read_report(run_folder)
    Journal.read(run_folder)
    for run in found.runs.values():
        check_recorded(run_folder, run)
    for file in steps.write_reports(found, run_folder).values():
        echo(file)
