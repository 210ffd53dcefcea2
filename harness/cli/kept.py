"""Commands on runs that are over: ``history``, ``issue``, ``table`` and ``pack``. As thin as ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, such as reports/pr-20260101-120000.")]


def add_to(app: typer.Typer) -> None:
    """Make the commands known to the command line."""
    app.command(
        epilog="Examples: `sp-harness history reports` | `sp-harness history kept/ reports/nightly-20260101-020000 "
        "--out reports/history`"
    )(history)
    app.command(
        epilog="Examples: `sp-harness issue reports/nightly-20260101-020000` | "
        "`sp-harness issue reports --history reports/history --log night.log > issue.md`"
    )(issue)
    app.command(
        epilog="Examples: `sp-harness table reports/pr-20260101-120000` | "
        "`sp-harness table reports/pr-20260101-120000 --markdown`"
    )(table)
    app.command(epilog="Example: `sp-harness pack reports/nightly-20260101-020000 kept/nightly`")(pack)


def history(
    paths: Annotated[
        list[Path], typer.Argument(metavar="DIR_OR_RUN...", help="Run folders, report.json files, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where history.jsonl and the pages are kept.")] = Path(
        "reports/history"
    ),
    slower: Annotated[float, typer.Option(help="Factor on a row's usual seconds a step that is told.")] = 1.25,
    moved_db: Annotated[float, typer.Option(help="Distance of a figure from last night's that is told.")] = 1.0,
) -> None:
    """Follow a matrix night after night: what changed, since when, and trend pages; keeps one line a run."""
    from harness.cli import history_command

    history_command.history(paths, out, slower, moved_db)


def issue(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_DIR", help="A run folder, or a folder with runs.")],
    past: Annotated[Path | None, typer.Option("--history", metavar="DIR", help="To say since when.")] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="What the run printed, if it has no report.")] = None,
    link: Annotated[str | None, typer.Option(metavar="URL", help="Where the night can be looked at.")] = None,
) -> None:
    """Print the text of an issue about the newest run: what broke, where, why; its first line is the title."""
    from harness.cli import history_command

    typer.echo(history_command.issue(path, past, log, link), nl=False)


def table(
    run_folder: RunPath,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print what splitting costs, a line for each cut: pads, fidelity, seconds a step, peak memory."""
    from harness.cli import report_commands

    report_commands.table(run_folder, as_markdown)


def pack(
    run_folder: RunPath,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to be made.")],
    reduced_px: Annotated[
        int, typer.Option("--pictures", min=1, metavar="PX", help="Longest side of the pictures of rows that pass.")
    ] = 256,
) -> None:
    """Copy a run for keeping: its report, what rows that do not pass left, and small pictures of the others."""
    from harness.cli import report_commands

    report_commands.pack(run_folder, to, reduced_px)
