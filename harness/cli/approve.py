"""``sp-harness approve``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from harness.cli._options import RunPath, echo
from harness.errors import UsageError

app = typer.Typer()


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
    from harness.goldens import approve as approving
    from harness.matrix.loader import current_pin
    from harness.runs.folder import RunFolder
    from harness.session import steps

    folder = RunFolder.open(run_folder)
    report = steps.known_report(folder)
    changes = approving.changes(folder, report, cases or ())
    for change in changes:
        echo(f"{change.case.name}: {change.what}")
    absent = [] if cases else approving.left_out(folder, report)
    if absent:
        echo(f"left out, their pictures are in the run folder that was packed: {', '.join(absent)}")
    pending = [change for change in changes if change.what != "unchanged"]
    if not pending:
        echo("nothing to approve")
        return
    approving.check_known(folder, current_pin(folder.plan.matrix))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("approving asks for a yes and there is no terminal; look at the changes, then add --yes")
        try:
            agreed = typer.confirm(f"Approve {len(pending)} goldens in {folder.plan.matrix.golden_store}?")
        except typer.Abort:  # Ctrl-C or Ctrl-D, for which typer would end with 1
            raise KeyboardInterrupt from None
        if not agreed:
            echo("nothing approved")
            return
    written = 0
    try:
        for change in pending:
            echo(f"approved {approving.approve(folder, report, change, by)}")
            written += 1
    finally:  # the pin covers what was written before one could not be
        digest = approving.pin(folder) if written else None
        if digest:
            echo(f'write into {folder.plan.matrix.path}: golden_digest = "{digest}"')
