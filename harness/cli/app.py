"""Entry point of the command line: its commands, and how errors become exit codes."""

from __future__ import annotations

import errno
import signal
import sys
from typing import Any

import typer

from harness.cli import (
    approve,
    compare,
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
    run,
    table,
)
from harness.errors import EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, HarnessError

EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO)
"""What a machine lacks or has broken, wherever it is noticed."""

app = typer.Typer(
    name="sp-harness",
    help="Does a diffusion engine draw the same picture when its sequence is split over devices?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (run, merge, plan, compare, explain, approve, report, history, issue, table, pack, ls, fuzz):
    app.add_typer(command.app)
for group in (golden, models, matrix, faults):
    app.add_typer(group.app)


def _terminated(number: int, frame: Any) -> None:
    """Treat SIGTERM as Ctrl-C: the report so far is written."""
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
