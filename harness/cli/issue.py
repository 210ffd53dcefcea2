"""``sp-harness issue``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import echo

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness issue reports/nightly-20260101-020000` | "
    "`sp-harness issue reports --history reports/history --log nightly.log > issue.md`"
)
def issue(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_DIR", help="A run folder, or a folder with runs.")],
    past: Annotated[Path | None, typer.Option("--history", metavar="DIR", help="To say since when.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="What the run printed, if it has no report.")] = None,
    link: Annotated[str | None, typer.Option(metavar="URL", help="Page of the run, for a link in the text.")] = None,
) -> None:
    """Print the text of an issue about the newest run: what broke, where, why; its first line is the title."""
    from harness.history import issue as writing

    echo(writing.issue(path, past, log, link), nl=False)
