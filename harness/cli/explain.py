"""``sp-harness explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli._options import RunPath, echo

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness explain reports/pr-20260101-120000` | "
    "`sp-harness explain reports/pr-20260101-120000 720x720/spatial-u2-auto`"
)
def explain(
    run_folder: RunPath,
    rows: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help="CASE/VARIANT; all failing rows by default.")
    ] = None,
) -> None:
    """Draw rows once more with a probe: who met which tokens, where they first went wrong, and why."""
    from harness.cli.console import make_console, print_report
    from harness.goldens import for_run
    from harness.matrix.loader import current_pin
    from harness.runs.folder import RunFolder
    from harness.session import explain as explaining
    from harness.session import steps

    folder = RunFolder.open(run_folder)
    complete, pin = folder.is_complete(), current_pin(folder.plan.matrix)
    report = steps.conclude(folder, complete=complete, pin=pin)
    for_run.propose(folder, report)
    chosen = explaining.select(report.rows, rows or ())
    if not chosen:
        echo("no row fails a comparison that can be explained; name one to look inside all the same")
        raise typer.Exit(report.exit_code)
    console = make_console(goes_on=True)
    console.print("drawing once more")
    for problem in explaining.explain(folder, chosen):
        console.print(problem, markup=False)
    report = steps.conclude(folder, complete=complete, pin=pin)
    print_report(console, report, steps.write_reports(report, run_folder))
    raise typer.Exit(report.exit_code)
