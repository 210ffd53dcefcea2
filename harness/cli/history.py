"""``sp-harness history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import echo
from harness.errors import UsageError

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness history reports` | `sp-harness history kept/ reports/nightly-20260101-020000 "
    "--out reports/history`"
)
def history(
    paths: Annotated[
        list[Path], typer.Argument(metavar="DIR_OR_RUN...", help="Run folders, report.json files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where history.jsonl and the pages are kept.")] = Path(
        "reports/history"
    ),
    slower: Annotated[float, typer.Option(help="Factor on a row's usual seconds a step that is told.")] = 1.25,
    moved_db: Annotated[
        float, typer.Option(help="Distance in dB from the last run's figure that counts as a change.")
    ] = 1.0,
) -> None:
    """Follow a matrix over its runs: changes, since when, and trend pages; keeps one line a run."""
    from harness.cli.console import make_console
    from harness.history import words
    from harness.history.changes import Limits
    from harness.history.update import update

    if not slower >= 1:
        raise UsageError(f"--slower {slower:g}: is a factor of at least 1; write for example --slower 1.25")
    if not moved_db >= 0:
        raise UsageError(f"--moved-db {moved_db:g}: is a distance in dB; write for example --moved-db 1")
    done = update(paths, out, Limits(slower, moved_db))
    console = make_console()
    for changes in done.changes:
        console.print(words.headline(changes))
        for head, lines in words.sections(changes):
            console.print(f"  {head}:")
            for line in lines:
                console.print(f"    {line}", soft_wrap=True)
    for problem in done.problems:
        echo(f"left out: {problem}", err=True)
    echo(f"{done.num_new} of {done.num_runs} runs are new in {done.kept}; pages: {done.index}")
