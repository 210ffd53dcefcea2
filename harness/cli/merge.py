"""``sp-harness merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import echo
from harness.cli.compare import compare

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness merge reports/pr-1of2-20260101-120000 reports/pr-2of2-20260101-120007` | "
    "`sp-harness merge shards/* --out reports`"
)
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of one matrix.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the merged folder goes.")] = Path("reports"),
    mixed: Annotated[bool, typer.Option("--mixed", help="Also where devices or versions differ.")] = False,
) -> None:
    """Make one run of the shards of a matrix, judge it and report; computes no picture."""
    from harness.matrix.loader import current_store
    from harness.runs import merge as merging
    from harness.runs.folder import RunFolder

    store = current_store(RunFolder.open(runs[0]).plan.matrix)
    folder = merging.merge(runs, out, mixed, store)
    echo(f"merged into {folder.path}")
    compare(folder.path)
