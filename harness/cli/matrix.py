"""``sp-harness matrix``: look into matrix files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import Json, echo
from harness.errors import EXIT_OK, EXIT_VERDICT

NAMED_AT_MOST = 3
"""Rows named that meet a class."""

app = typer.Typer(name="matrix", no_args_is_help=True, help="Look into matrix files.")


@app.command(
    epilog="Examples: `sp-harness matrix cover matrices/pr.toml` | "
    "`sp-harness matrix cover matrices/pr.toml matrices/features.toml --json`"
)
def cover(
    matrices: Annotated[list[Path], typer.Argument(metavar="MATRIX...", help="Matrix files, taken together.")],
    as_json: Json = False,
) -> None:
    """Say which classes of shapes and features matrices meet, and what to add for the rest; exit 1 if any lacks."""
    from harness.matrix import coverage, suggest
    from harness.matrix.schema import read_tables
    from harness.session import steps

    planned = [steps.prepare(path) for path in matrices]
    found = coverage.cover(planned)
    last = planned[-1][0]
    added = suggest.additions(last, found.missing)
    text = suggest.as_toml(added, last, read_tables(matrices[-1])) if found.missing else ""
    if as_json:
        classes = [{"class": name, "count": len(rows), "rows": rows} for name, rows in found.rows.items()]
        document = {"matrices": list(map(str, matrices)), "classes": classes, "missing": found.missing}
        echo(json.dumps(document | {"additions": text}, indent=2))
    else:
        _show(found.rows)
        if text:
            echo(f"\n# to be added at the end of {matrices[-1]}:\n\n{text}", nl=False)
    raise typer.Exit(EXIT_VERDICT if found.missing else EXIT_OK)


def _show(rows: Mapping[str, Sequence[str]]) -> None:
    """Print each class with the rows that meet it, or that none does."""
    from rich.table import Table
    from rich.text import Text

    from harness.cli.console import make_console, print_table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("class", "rows", "such as"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for name, met in rows.items():
        such = Text(", ".join(met[:NAMED_AT_MOST])) if met else Text("not met", style="bold yellow")
        table.add_row(name, str(len(met)), such)
    console = make_console()
    print_table(console, table)
    console.print(f"{sum(map(bool, rows.values()))} of {len(rows)} classes are met")
