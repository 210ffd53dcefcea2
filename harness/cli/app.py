"""Entry point of the command line: its commands, and how errors become exit codes."""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated, Any

import typer

from harness import __version__, bug
from harness.cli import (
    _bisect,
    approve,
    benign,
    compare,
    doctor,
    engines,
    explain,
    faults,
    fuzz,
    golden,
    history,
    issue,
    ls,
    matrix,
    merge,
    models,
    pack,
    plan,
    report,
    rerun,
    run,
    show,
    table,
)
from harness.cli._options import echo
from harness.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_OK, user_error

app = typer.Typer(
    name="sp-harness",
    help="Does a diffusion engine draw the same picture when its sequence is split over devices?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    run,
    rerun,
    merge,
    plan,
    compare,
    explain,
    approve,
    report,
    show,
    history,
    issue,
    table,
    pack,
    ls,
    fuzz,
    doctor,
    benign,
):
    app.add_typer(command.app)
for group in (golden, models, matrix, faults, engines):
    app.add_typer(group.app)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit(EXIT_OK)


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def _terminated(number: int, frame: Any) -> None:
    """Treat SIGTERM as Ctrl-C: the report so far is written."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; every exception ends in one line and the exit code of its kind."""
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where a terminal has few characters, or a path no text
    code = _exit_code()
    sys.exit(_bisect.of(code) if _bisect.is_wanted(sys.argv) else code)


def _exit_code() -> int:
    try:
        app()
    except SystemExit as ended:  # typer's way to end
        if isinstance(ended.__context__, BrokenPipeError):  # which it ends with 1, the code of a verdict
            return EXIT_BROKEN_PIPE
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        echo("sp-harness: interrupted", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        known = user_error(error) or bug.keep(error)
        echo(f"sp-harness: {' '.join(str(known).splitlines())}", err=True)
        return known.exit_code
    return EXIT_OK
