"""``sp-harness compare``."""

from __future__ import annotations

import typer

from harness.cli._options import RunPath

app = typer.Typer()


@app.command(epilog="Example: `sp-harness compare reports/pr-20260101-120000`")
def compare(run_folder: RunPath) -> None:
    """Compare and judge what a run folder holds, and write its report anew; computes no picture."""
    from harness.cli.console import make_console, print_report
    from harness.goldens import for_run
    from harness.matrix.loader import current_pin
    from harness.runs.folder import RunFolder
    from harness.session import steps

    folder = RunFolder.open(run_folder)
    report = steps.conclude(folder, complete=folder.is_complete(), pin=current_pin(folder.plan.matrix))
    for_run.propose(folder, report)
    print_report(make_console(goes_on=True), report, steps.write_reports(report, run_folder))
    raise typer.Exit(report.exit_code)
