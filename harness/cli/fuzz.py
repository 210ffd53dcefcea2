"""``sp-harness fuzz``."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import Python, check_known
from harness.environments.table import address
from harness.errors import EXIT_OK, EXIT_USAGE, EXIT_VERDICT, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.fuzz.space import Space

app = typer.Typer()


@app.command(
    epilog="Examples: `sp-harness fuzz --engine spatial --minutes 5` | "
    "`sp-harness fuzz --engine diffusers-cp --option mask=whole,split` | "
    "`sp-harness fuzz --engine sglang --python sglang=~/sglang/.venv/bin/python`"
)
def fuzz(
    engine: Annotated[
        str, typer.Option(metavar="ENGINE[@NAME]", help="Engine to look for a failure of, NAME: in this environment.")
    ],
    python: Python = None,
    minutes: Annotated[float, typer.Option(help="How long to search.")] = 5.0,
    model: Annotated[str | None, typer.Option(help="nano by default, fake for the engine fake.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; another each time by default.")] = None,
    max_ranks: Annotated[int, typer.Option(help="Ranks at most.")] = 3,
    fault: Annotated[str | None, typer.Option(help="Plant this bug, to see it found.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE,...", help="Draw an option of the engine from these values.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where a failing matrix is written.")] = Path("reports"),
) -> None:
    """Draw matrices until one fails, shrink it to the smallest, and write it as a file that reproduces it."""
    from harness import files, plugins
    from harness.fuzz.space import Space, check, read_options

    engine, _, environment = engine.partition("@")
    check_known("--engine", engine, plugins.names("engines"))
    if not 0 < minutes <= 60 * 24 * 7:
        raise UsageError(f"--minutes {minutes:g}: write a number above 0, at most a week")
    space = Space(
        engine,
        model or ("fake" if engine == "fake" else "nano"),
        max_ranks,
        fault,
        options=read_options(engine, option or ()),
        environment=environment,
        python=tuple(python or ()),
    )
    check(space)
    with files.writing(out, "name another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
    raise typer.Exit(search(space, out, minutes * 60, secrets.randbelow(2**32) if seed is None else seed))


def search(space: Space, out: Path, seconds: float, seed: int) -> int:
    """Fuzz within a space; the exit code is 1 with a failure, 0 without one, 2 where nothing was run.

    What ends it early (Ctrl-C, the machine) is raised again after the summary.
    """
    from harness.cli.console import FuzzProgress, make_console
    from harness.fuzz import search as searching

    console = make_console(goes_on=True)
    command = _command(space, seed)
    console.print(command)
    tally = searching.Tally(seconds)
    stopped: BaseException | None = None
    try:
        with FuzzProgress(console) as progress:
            searching.fuzz(space, out, tally, seed, progress)
    except (KeyboardInterrupt, HarnessError) as error:
        stopped = error
    console.print(f"{tally.examples} examples in {tally.elapsed_s:.0f} s, {tally.skips} more could not be run")
    if tally.found:
        path = searching.write(tally.found, out, command, space.python)
        console.print(f"{tally.found.sentence}\nwritten to {path}", style="bold red")
        console.print(f"run it with: {searching.run_command(path, space.python)}")
    if stopped:
        raise stopped
    if not tally.found:
        console.print("no failure" if tally.examples else "nothing was run: give it more --minutes")
        return EXIT_OK if tally.examples else EXIT_USAGE
    console.print("running it by itself ...")
    report, page = searching.reproduce(path, out, space.python)
    alone = report.exit_code == EXIT_VERDICT
    what = "fails by itself too" if alone else "passes by itself: it takes the requests that came before, or chance"
    console.print(f"{what}; report: {page}")
    return EXIT_VERDICT


def _command(space: Space, seed: int) -> str:
    words = [
        "sp-harness",
        "fuzz",
        "--engine",
        address(space.engine, space.environment),
        "--model",
        space.model,
        "--seed",
        str(seed),
    ]
    words += ["--max-ranks", str(space.max_ranks), *(["--fault", space.fault] if space.fault else [])]
    words += [word for each in space.python for word in ("--python", each)]
    for name, values in space.options:
        shown = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
        words += ["--option", f"{name}={','.join(shown)}"]
    return shlex.join(words)
