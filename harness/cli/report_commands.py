"""What ``sp-harness table`` and ``sp-harness pack`` do: commands on a run that has its report."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.console import make_console
from harness.reporting import cost_table
from harness.runs.folder import read_report
from harness.session import pack as packing


def table(path: Path, as_markdown: bool) -> None:
    """Print what splitting costs."""
    report = read_report(path)
    lines = cost_table.lines(report)
    if as_markdown:
        typer.echo(cost_table.markdown(lines), nl=False)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for head in cost_table.HEADS.values():
        shown.add_column(head.replace(" (", "\n("), no_wrap=True)
    for line in lines:
        shown.add_row(*(Text(cell) for cell in astuple(line)))
    console = make_console()
    console.print(shown)
    console.print(Text(f"{report.name}, {report.platform}. {cost_table.KEY}"), soft_wrap=True)


def pack(path: Path, to: Path, reduced_px: int) -> None:
    """Copy a run for keeping."""
    kept, count = packing.pack(path, to, reduced_px)
    others = ", the others with small pictures" if kept < count else ""
    typer.echo(f"{to}: {kept} of {count} runs with pictures and latents as they are{others}")
