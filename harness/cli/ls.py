"""``sp-harness ls``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli._options import Json, echo, echo_json
from harness.errors import FileError

app = typer.Typer()


@app.command(epilog="Examples: `sp-harness ls` | `sp-harness ls matrices/pr.toml` | `sp-harness ls reports --json`")
def ls(
    what: Annotated[Path | None, typer.Argument(metavar="[WHAT]", help="A matrix file or a folder of runs.")] = None,
    as_json: Json = False,
) -> None:
    """List plugins; or the rows of a matrix; or the runs in a folder."""
    from harness import plugins
    from harness.session import steps

    if what is None:
        kinds = {kind: plugins.names(kind) for kind in plugins.KINDS}
        lines = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items()]
        _print(lines, kinds, as_json)
    elif what.is_dir():
        runs = list(_runs(what))
        _print([f"{run['path']}  {_ended(run)}" for run in runs], runs, as_json)
    else:
        matrix, graph = steps.prepare(what)
        rows, lines = [], []
        for row in graph.rows:
            cut = f"{row.plan.axis} {'+'.join(map(str, row.plan.shard_tokens))}" if row.plan else "-"
            lines.append(f"{row.name}  {row.skip or cut}")
            plan = {"axis": row.plan.axis, "shard_tokens": row.plan.shard_tokens} if row.plan else None
            rows.append({"row": row.name, "size": str(row.case.size), "skip": row.skip, "plan": plan})
        lines.append(f"{matrix.name}: {len(graph.rows)} rows, {len(graph.specs)} runs")
        _print(lines, {"matrix": matrix.name, "rows": rows, "runs": len(graph.specs)}, as_json)


def _print(lines: list[str], data: Any, as_json: bool) -> None:
    if as_json:
        echo_json(data)
        return
    for line in lines:
        echo(line)


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield path, exit code and number of rows of each outcome of the runs in a folder; null of those not judged."""
    from harness.runs.folder import read_report

    for path in sorted(folder.glob("*/plan.json")):
        code, counts = None, None
        try:
            report = read_report(path.parent)
        except FileError:
            pass
        else:
            outcomes = [row.verdict.outcome.value for row in report.rows if row.verdict]
            code, counts = report.exit_code, {name: outcomes.count(name) for name in dict.fromkeys(outcomes)}
        yield {"path": str(path.parent), "exit_code": code, "outcomes": counts}


def _ended(run: dict[str, Any]) -> str:
    """Say how a run ended: its exit code, and how many rows have which outcome."""
    if run["outcomes"] is None:
        return "not judged"
    counts = ", ".join(f"{count} {name}" for name, count in run["outcomes"].items())
    return f"exit code {run['exit_code']}, {counts}"
