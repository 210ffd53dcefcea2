"""``sp-harness show``."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import RunPath, check_known, echo
from harness.errors import UsageError

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness show reports/pr-20260101-120000` | "
    "`sp-harness show reports/pr-20260101-120000 720x720/spatial-u2-h`"
)
def show(
    run_folder: RunPath,
    row: Annotated[str | None, typer.Argument(metavar="[ROW]", help="Its page, CASE/VARIANT.")] = None,
    path: Annotated[bool, typer.Option("--path", help="Print the page's path and open nothing.")] = False,
) -> None:
    """Open a run's report, or the page of one row, in a browser; print its path where there is no screen."""
    page = _page(run_folder, row)
    if not page.is_file():
        raise UsageError(f"{page}: is missing; write the pages with: sp-harness report {run_folder}")
    if not path and has_screen() and webbrowser.open(page.resolve().as_uri()):
        return
    echo(page)


def _page(run: Path, row: str | None) -> Path:
    from harness.reporting import row_pages
    from harness.runs.folder import read_report

    if row is None:
        return run / "index.html"
    rows = read_report(run).rows
    names = {known.name: name for known, name in zip(rows, row_pages.names_of(rows), strict=True)}
    check_known("row", row, names)
    return run / row_pages.page_of(names[row])


def has_screen() -> bool:
    """Whether a browser has a screen of this user; one that draws in the terminal is none."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
