"""``sp-harness table``."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli._options import RunPath

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness table reports/pr-20260101-120000` | "
    "`sp-harness table reports/pr-20260101-120000 --markdown`"
)
def table(
    run_folder: RunPath,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print what splitting costs, a line for each cut: pads, fidelity, seconds a step, peak memory."""
    from harness.cli.console import make_console, print_costs
    from harness.reporting import cost_table
    from harness.runs.folder import read_report

    report = read_report(run_folder)
    lines = cost_table.lines(report)
    if as_markdown:
        typer.echo(cost_table.markdown(lines), nl=False)
    else:
        print_costs(make_console(), report, lines)
