"""``sp-harness faults``: plant known bugs, and see who finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import Json, echo, echo_json
from harness.cli.run import created, resumed
from harness.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from harness.kill_score.planting import Overrides
    from harness.runs.folder import RunFolder
    from harness.types import Report

app = typer.Typer(name="faults", no_args_is_help=True, help="Plant known bugs, and see who finds them.")

FAULTS_TOML = Path("matrices/faults.toml")
NOT_PLANTED = "not-planted"
"""Event of the journal: bugs that no row of the matrix can show, and what such a row needs."""


@app.command(
    epilog="Examples: `sp-harness faults run` | `sp-harness faults run --only attention-local` | "
    "`sp-harness faults run --dtype bfloat16` | `sp-harness faults run --model z-image-random --device cuda "
    "--size 2032x256 --max-ranks 2` | `sp-harness faults run --resume reports/faults-20260101-120000`"
)
def run(
    matrix: Annotated[Path, typer.Option(help="Healthy rows to plant in.")] = FAULTS_TOML,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this bug.")] = None,
    model: Annotated[str | None, typer.Option(help="Draw with this model instead of the file's.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Draw in this type: float32, bfloat16, float16.")] = None,
    device: Annotated[str | None, typer.Option(help="Draw on this device: cpu, cuda.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Draw at WIDTHxHEIGHT; portrait cases at it turned; one of each orientation may be named."),
    ] = None,
    max_ranks: Annotated[int | None, typer.Option(min=2, help="Leave rows on more ranks out.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts; then sp-harness merge, and --resume.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Finish this run folder, or score merged shards.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    as_json: Json = False,
) -> None:
    """Plant every bug where it shows, and print who finds it: this harness, and the gates of other projects."""
    from harness import codec
    from harness.cli.console import make_console
    from harness.kill_score import planting, score, table
    from harness.runs.journal import Journal
    from harness.session import steps

    overrides = planting.Overrides(model, dtype, device, tuple(size or ()), max_ranks)
    if resume and (only or shard or matrix != FAULTS_TOML or overrides != planting.Overrides()):
        raise UsageError("--resume finishes what was planned; name nothing beside it but --out and --json")
    folder = resumed(resume) if resume else _planned(matrix, only or (), overrides, shard, out)
    if folder is None:
        raise typer.Exit(EXIT_OK)
    if not planting.places_in(folder.plan.rows):
        raise UsageError(f"{folder.path}: no bug is planted there; name a run folder of sp-harness faults run")
    try:
        report = _drawn(folder)
    except KeyboardInterrupt:
        remedy = f"finish it with: sp-harness faults run --resume {folder.path}"
        make_console(stderr=True, goes_on=True).print(f"interrupted; what is drawn stays in {folder.path}; {remedy}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    steps.write_reports(report, folder.path)
    noted = [entry["needs"] for entry in Journal.read(folder.path).events if entry["event"] == NOT_PLANTED]
    found = score.score(report, planting.places_in(report.rows), noted[0] if noted else {}, folder.sample)
    page = table.write(found, folder.path)
    echo(json.dumps(codec.encode(found), indent=2) if as_json else table.markdown(found), nl=as_json)
    echo(page, err=True)
    raise typer.Exit(found.exit_code)


def _planned(path: Path, only: Sequence[str], overrides: Overrides, shard: str | None, out: Path) -> RunFolder | None:
    """Make a run folder of a matrix with bugs; ``None`` where a shard has no case."""
    from harness.kill_score import planting
    from harness.matrix.loader import read_matrix
    from harness.planning.partition import Shard
    from harness.session import steps

    part = Shard.parse(shard) if shard is not None else None
    matrix = planting.overridden(read_matrix(path), overrides)
    places, not_planted = planting.place(steps.plan(matrix), only)
    if not places:
        raise UsageError(f"{path}: no row can show {', '.join(not_planted)}; see sp-harness faults ls")
    faulty = planting.planted(matrix, places, whole=not only)
    folder = created(out, faulty, steps.plan(faulty), "off", part)
    if folder:
        folder.note(NOT_PLANTED, needs=not_planted)
    return folder


def _drawn(folder: RunFolder) -> Report:
    """Draw what is lacking, then what fails once more with a probe, so that its cause can be named."""
    from harness.cli.console import LiveProgress, make_console
    from harness.execution.pool import Pool
    from harness.session import explain, steps

    console = make_console(stderr=True, goes_on=True)
    with Pool(folder.path / "logs") as pool, LiveProgress(console, folder.plan.specs, folder.missing()) as progress:
        steps.record(folder, pool, on_event=progress)
    failing = explain.select(steps.conclude(folder).rows)
    console.print(f"explaining {len(failing)} rows")
    for problem in explain.explain(folder, failing):
        console.print(problem)
    return steps.conclude(folder)


@app.command(epilog="Example: `sp-harness faults ls`")
def ls(as_json: Json = False) -> None:
    """List the planted bugs: cause, what a row needs to show it, public thread."""
    from harness import plugins

    if as_json:
        known = plugins.load_all("faults")
        echo_json([{"name": f.name, "cause": f.cause, "needs": f.needs, "source": f.source} for f in known])
        return
    for fault in plugins.load_all("faults"):
        echo(f"{fault.name}: {fault.cause}; needs {', '.join(fault.needs) or 'nothing'}; {fault.source}")
