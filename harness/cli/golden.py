"""``sp-harness golden``: look after the goldens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import Json, echo, echo_json
from harness.errors import EXIT_OK, EXIT_VERDICT, UsageError

app = typer.Typer(name="golden", no_args_is_help=True, help="Look after the approved pictures.")


@app.command(epilog="Example: `sp-harness golden verify matrices/pr.toml matrices/smoke.toml`")
def verify(
    matrices: Annotated[list[Path] | None, typer.Argument(metavar="[MATRIX]...", help="All of matrices/.")] = None,
    as_json: Json = False,
) -> None:
    """Find goldens that are missing, altered, or, where no matrix is named, unused; exit 1 if there are any."""
    from harness.goldens import verify as verifying
    from harness.matrix.loader import read_matrix

    paths = matrices or sorted(Path("matrices").glob("*.toml"))
    if not paths:
        raise UsageError("matrices/ holds no matrix; name one: sp-harness golden verify matrices/pr.toml")
    found = [read_matrix(path) for path in paths]
    asked, problems = verifying.verify(found, is_all=not matrices)
    empty = verifying.empty_stores(found)
    if as_json:
        echo_json({"asked": asked, "problems": problems, "empty": empty})
    else:
        for problem in problems:
            echo(problem)
        for place in empty:
            said = "is empty: it holds no golden of what is verified; approve a run with sp-harness approve"
            echo(f"golden_store {place} {said}")
        echo(f"{asked} goldens asked for, {len(problems)} problems")
    raise typer.Exit(EXIT_VERDICT if problems else EXIT_OK)
