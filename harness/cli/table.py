"""``sp-harness table``."""

from __future__ import annotations

from dataclasses import astuple
from typing import Annotated

import typer

from harness.cli._options import Json, RunPath, echo, echo_json

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness table reports/pr-20260101-120000` | "
    "`sp-harness table reports/pr-20260101-120000 --markdown`"
)
def table(
    run_folder: RunPath,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Print what splitting costs, a line for each cut: pads, fidelity, seconds a step, peak memory."""
    from rich.table import Table

    from harness.cli.console import make_console, print_table
    from harness.reporting import cost_table
    from harness.runs.folder import read_report

    report = read_report(run_folder)
    lines = cost_table.lines(report)
    if as_json:
        echo_json(lines)
        return
    if as_markdown:
        echo(cost_table.markdown(lines), nl=False)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for head in cost_table.HEADS.values():
        shown.add_column(head.replace(" (", "\n("), no_wrap=True)
    for line in lines:
        shown.add_row(*astuple(line))
    console = make_console()
    print_table(console, shown)
    console.print(f"{report.name}, {report.platform}. {cost_table.KEY}", soft_wrap=True)
