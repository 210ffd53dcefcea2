"""``sp-harness ls``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import echo
from harness.errors import FileError

app = typer.Typer()


@app.command(epilog="Examples: `sp-harness ls` | `sp-harness ls matrices/pr.toml` | `sp-harness ls reports`")
def ls(
    what: Annotated[Path | None, typer.Argument(metavar="[WHAT]", help="A matrix file or a folder of runs.")] = None,
) -> None:
    """List plugins; or the rows of a matrix; or the runs in a folder."""
    from harness import plugins
    from harness.session import steps

    if what is None:
        for kind in plugins.KINDS:
            echo(f"{kind}: {', '.join(plugins.names(kind))}")
    elif what.is_dir():
        for path in sorted(what.glob("*/plan.json")):
            echo(f"{path.parent}  {_judged(path.parent)}")
    else:
        matrix, graph = steps.prepare(what)
        for row in graph.rows:
            cut = f"{row.plan.axis} {'+'.join(map(str, row.plan.shard_tokens))}" if row.plan else "-"
            echo(f"{row.name}  {row.skip or cut}")
        echo(f"{matrix.name}: {len(graph.rows)} rows, {len(graph.specs)} runs")


def _judged(run: Path) -> str:
    """Say how a run ended: its exit code, and how many rows have which outcome."""
    from harness.runs.folder import read_report

    try:
        report = read_report(run)
    except FileError:
        return "not judged"
    outcomes = [row.verdict.outcome.value for row in report.rows if row.verdict]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))
    return f"exit code {report.exit_code}, {counts}"
