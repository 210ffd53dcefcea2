"""``sp-harness faults``: plant known bugs, and see who finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import Json
from harness.errors import EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from harness.runs.folder import RunFolder
    from harness.types import Report

app = typer.Typer(name="faults", no_args_is_help=True, help="Plant known bugs, and see who finds them.")


@app.command(
    epilog="Examples: `sp-harness faults run` | `sp-harness faults run --only attention-local` | "
    "`sp-harness faults run --matrix matrices/features.toml`"
)
def run(
    matrix: Annotated[Path, typer.Option(help="Healthy rows to plant in.")] = Path("matrices/faults.toml"),
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this bug.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    as_json: Json = False,
) -> None:
    """Plant every bug where it shows, and print who finds it: this harness, and the gates of other projects."""
    from harness import codec
    from harness.cli.console import make_console
    from harness.kill_score import score, table
    from harness.runs.folder import RunFolder
    from harness.session import steps

    healthy, graph = steps.prepare(matrix)
    places, not_planted = score.place(graph, only or ())
    if not places:
        raise UsageError(f"{matrix}: no row can show {', '.join(not_planted)}; see sp-harness faults ls")
    faulty = score.planted(healthy, places, whole=not only)
    folder = RunFolder.create(out, faulty, steps.plan(faulty), "off")
    try:
        report = _drawn(folder)
    except KeyboardInterrupt:
        make_console(stderr=True).print(f"interrupted; what is drawn stays in {folder.path}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    steps.write_reports(report, folder.path)
    found = score.score(report, places, not_planted, folder.sample)
    page = table.write(found, folder.path)
    typer.echo(json.dumps(codec.encode(found), indent=2) if as_json else table.markdown(found), nl=as_json)
    typer.echo(page, err=True)
    raise typer.Exit(found.exit_code)


def _drawn(folder: RunFolder) -> Report:
    """Draw everything, then what fails once more with a probe, so that its cause can be named."""
    from harness.cli.console import LiveProgress, make_console
    from harness.execution.pool import Pool
    from harness.session import explain, steps

    console = make_console(stderr=True)
    with Pool(folder.path / "logs") as pool, LiveProgress(console, folder.plan.specs) as progress:
        steps.record(folder, pool, on_event=progress)
    failing = explain.select(steps.conclude(folder).rows)
    console.print(f"explaining {len(failing)} rows")
    for problem in explain.explain(folder, failing):
        console.print(problem)
    return steps.conclude(folder)


@app.command(epilog="Example: `sp-harness faults ls`")
def ls() -> None:
    """List the planted bugs: cause, what a row needs to show it, public thread."""
    from harness import plugins

    for fault in plugins.load_all("faults"):
        typer.echo(f"{fault.name}: {fault.cause}; needs {', '.join(fault.needs) or 'nothing'}; {fault.source}")
