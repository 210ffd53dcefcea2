"""The command line: chooses, never configures. Commands import what they need when they are called."""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import kept
from harness.cli.kept import RunPath
from harness.errors import EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, HarnessError, UsageError

app = typer.Typer(
    name="sp-harness",
    help="Does a diffusion engine draw the same picture when its sequence is split over devices?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
golden_app = typer.Typer(no_args_is_help=True, help="Look after the approved pictures.")
models_app = typer.Typer(no_args_is_help=True, help="Look after checkpoints.")
faults_app = typer.Typer(no_args_is_help=True, help="Plant known bugs, and see who finds them.")
matrix_app = typer.Typer(no_args_is_help=True, help="Look into matrix files.")
app.add_typer(golden_app, name="golden")
app.add_typer(models_app, name="models")
app.add_typer(matrix_app, name="matrix")
app.add_typer(faults_app, name="faults")

Matrices = Annotated[Path, typer.Argument(metavar="MATRIX", help="Matrix file, such as matrices/pr.toml.")]
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO)
"""What a machine lacks or has broken, wherever it is noticed."""


@app.command(
    epilog="Examples: `sp-harness run matrices/pr.toml` | `sp-harness run matrices/pr.toml --case 720x720 --axis h` | "
    "`sp-harness run --resume reports/pr-20260101-120000` | `sp-harness run matrices/pr.toml --shard 1/4`"
)
def run(
    matrix: Annotated[Path | None, typer.Argument(metavar="MATRIX", help="Matrix file.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    case: Annotated[list[str] | None, typer.Option(help="Only cases of this name (shell pattern).")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Only this size, WIDTHxHEIGHT.")] = None,
    axis: Annotated[list[str] | None, typer.Option(help="Only this axis: auto, h, w, none.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Only this engine.")] = None,
    golden: Annotated[str, typer.Option(help="'off' holds nothing to a golden; 'required' as the matrix says.")] = (
        "required"
    ),
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Finish this run folder.")] = None,
    judge: Annotated[bool, typer.Option("--judge/--no-judge", help="Record only; judge later by compare.")] = True,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Draw failing rows once more, and look inside.")
    ] = True,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts, for N machines; then sp-harness merge.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Where runs are computed: local, or ray for a Ray cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The Ray cluster; found as ray finds it, or started here.")
    ] = None,
) -> None:
    """Run a matrix: draw every case with and without SP, compare, judge, report."""
    from harness.cli import commands
    from harness.execution import executor as executors
    from harness.planning.partition import Shard

    if resume and (case or size or axis or engine or shard or golden != "required"):
        raise UsageError(
            "--resume finishes what was planned; leave out --case, --size, --axis, --engine, --shard and --golden"
        )
    selection = commands.selection(case, size, axis, engine)
    if (matrix is None) == (resume is None):
        raise UsageError("name either a matrix file or --resume RUN, for example: sp-harness run matrices/pr.toml")
    part = Shard.parse(shard) if shard is not None else None
    make = executors.maker(executor, ray_address)
    folder = commands.resume(resume) if resume else commands.create(_given(matrix), out, selection, golden, part)
    raise typer.Exit(commands.run(folder, judge, explain, make) if folder else 0)


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
    from harness.cli import commands

    raise typer.Exit(commands.merge(runs, out, mixed))


@app.command(epilog="Examples: `sp-harness plan 720x720 --ulysses 2` | `sp-harness plan 1280x720 --ulysses 3 --json`")
def plan(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="WIDTHxHEIGHT in pixels.")],
    ulysses: Annotated[int, typer.Option(help="Ulysses degree: ranks that share the picture.")] = 2,
    ring: Annotated[int, typer.Option(help="Ring degree.")] = 1,
    axis: Annotated[str, typer.Option(help="auto, h or w.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain how a size is cut: shards, pads, and which axis wins by which rule."""
    from harness.cli import commands

    commands.plan(size, ulysses, ring, axis, as_json)


@app.command(epilog="Example: `sp-harness compare reports/pr-20260101-120000`")
def compare(run_folder: RunPath) -> None:
    """Compare and judge what a run folder holds, and write its report anew; computes no picture."""
    from harness.cli import commands

    raise typer.Exit(commands.compare(run_folder))


@app.command(
    epilog="Examples: `sp-harness explain reports/pr-20260101-120000` | "
    "`sp-harness explain reports/pr-20260101-120000 720x720/spatial-u2-auto`"
)
def explain(
    run_folder: RunPath,
    rows: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help="CASE/VARIANT; all failing rows by default.")
    ] = None,
) -> None:
    """Draw rows once more with a probe: who met which tokens, where they first went wrong, and why."""
    from harness.cli import commands

    raise typer.Exit(commands.explain_rows(run_folder, rows or []))


@app.command(
    epilog="Examples: `sp-harness approve reports/pr-20260101-120000` | "
    "`sp-harness approve reports/pr-20260101-120000 720x720 --yes`"
)
def approve(
    run_folder: RunPath,
    cases: Annotated[list[str] | None, typer.Argument(metavar="[CASE]...", help="Cases; all by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: Annotated[str | None, typer.Option(help="Who approves; your git name by default.")] = None,
) -> None:
    """Approve a run's baselines as goldens; shows first what changes and by how much."""
    from harness.cli import golden_command

    golden_command.approve(run_folder, cases or [], yes, by)


@golden_app.command(epilog="Example: `sp-harness golden verify matrices/pr.toml matrices/smoke.toml`")
def verify(
    matrices: Annotated[list[Path] | None, typer.Argument(metavar="[MATRIX]...", help="All of matrices/.")] = None,
) -> None:
    """Find goldens that are missing, altered, or, where no matrix is named, unused; exit 1 if there are any."""
    from harness.cli import golden_command

    raise typer.Exit(golden_command.verify(matrices or sorted(Path("matrices").glob("*.toml")), not matrices))


@app.command(epilog="Example: `sp-harness report reports/pr-20260101-120000`")
def report(run_folder: RunPath) -> None:
    """Write all report formats again from a run's report.json."""
    from harness.cli import commands

    commands.report(run_folder)


kept.add_to(app)


@models_app.command("build", epilog="Example: `sp-harness models build nano-random`")
def build_model(
    name: Annotated[str, typer.Argument(help="A built-in model: nano-random.")],
    to: Annotated[Path | None, typer.Option(help="Folder to build into; the cache by default.")] = None,
) -> None:
    """Build a model of random weights, offline and always the same; `nano` is shipped."""
    from harness import models

    typer.echo(models.build(name, to))


@models_app.command("ls", epilog="Example: `sp-harness models ls`")
def list_models() -> None:
    """List the built-in models."""
    from harness import models

    for name in models.names():
        typer.echo(name)


@app.command(epilog="Examples: `sp-harness ls` | `sp-harness ls matrices/pr.toml` | `sp-harness ls reports`")
def ls(
    what: Annotated[Path | None, typer.Argument(metavar="[WHAT]", help="A matrix file or a folder of runs.")] = None,
) -> None:
    """List plugins; or the rows of a matrix; or the runs in a folder."""
    from harness.cli import commands

    commands.ls(what)


@matrix_app.command(
    epilog="Examples: `sp-harness matrix cover matrices/pr.toml` | "
    "`sp-harness matrix cover matrices/pr.toml matrices/features.toml --json`"
)
def cover(
    matrices: Annotated[list[Path], typer.Argument(metavar="MATRIX...", help="Matrix files, taken together.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which classes of shapes and features matrices meet, and what to add for the rest; exit 1 if any lacks."""
    from harness.cli import commands

    raise typer.Exit(commands.cover(matrices, as_json))


@app.command(
    epilog="Examples: `sp-harness fuzz --engine spatial --minutes 5` | "
    "`sp-harness fuzz --engine spatial --fault gather-uncropped --max-ranks 2`"
)
def fuzz(
    engine: Annotated[str, typer.Option(help="Engine to look for a failure of.")],
    minutes: Annotated[float, typer.Option(help="How long to search.")] = 5.0,
    model: Annotated[str | None, typer.Option(help="nano by default, fake for the engine fake.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; another each time by default.")] = None,
    max_ranks: Annotated[int, typer.Option(help="Ranks at most.")] = 3,
    fault: Annotated[str | None, typer.Option(help="Plant this bug, to see it found.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where a failing matrix is written.")] = Path("reports"),
) -> None:
    """Draw matrices until one fails, shrink it to the smallest, and write it as a file that reproduces it."""
    from harness.cli import fuzz_command

    raise typer.Exit(fuzz_command.run(engine, minutes, model, seed, max_ranks, fault, out))


@faults_app.command(
    "run",
    epilog="Examples: `sp-harness faults run` | `sp-harness faults run --only attention-local` | "
    "`sp-harness faults run --matrix matrices/features.toml`",
)
def run_faults(
    matrix: Annotated[Path, typer.Option(help="Healthy rows to plant in.")] = Path("matrices/faults.toml"),
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this bug.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plant every bug where it shows, and print who finds it: this harness, and the gates of other projects."""
    from harness.cli import faults_command

    raise typer.Exit(faults_command.run(matrix, only or [], out, as_json))


@faults_app.command("ls", epilog="Example: `sp-harness faults ls`")
def list_faults() -> None:
    """List the planted bugs: cause, what a row needs to show it, public thread."""
    from harness.cli import faults_command

    faults_command.ls()


def _given(matrix: Path | None) -> Path:
    assert matrix is not None
    return matrix


def _terminated(number: int, frame: Any) -> None:
    """A polite request to end is treated as Ctrl-C: the report so far is written."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every error a user can cause ends in one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except HarnessError as error:
        typer.echo(f"sp-harness: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("sp-harness: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise  # a bug of ours
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"sp-harness: {place}{error.strerror}", err=True)
        sys.exit(EXIT_INFRASTRUCTURE)


if __name__ == "__main__":
    main()
