"""``sp-harness pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import RunPath, echo

app = typer.Typer()


@app.command(epilog="Example: `sp-harness pack reports/nightly-20260101-020000 kept/nightly`")
def pack(
    run_folder: RunPath,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to be made.")],
    reduced_px: Annotated[
        int, typer.Option("--pictures", min=1, metavar="PX", help="Longest side of the pictures of rows that pass.")
    ] = 256,
) -> None:
    """Copy a run for keeping: its report, what rows that do not pass left, and small pictures of the others."""
    from harness.session import pack as packing

    whole, count = packing.pack(run_folder, to, reduced_px)
    others = ", the others with small pictures" if whole < count else ""
    echo(f"{to}: {whole} of {count} runs with pictures and latents as they are{others}")
