"""``sp-harness doctor``."""

from __future__ import annotations

from pathlib import Path

import typer

from harness.cli._options import Json, echo, echo_json
from harness.errors import EXIT_INFRASTRUCTURE, EXIT_OK

app = typer.Typer()


@app.command(epilog="Examples: `sp-harness doctor` | `sp-harness doctor --json`")
def doctor(as_json: Json = False) -> None:
    """Say what this machine can draw and what is lacking: devices, ranks that fit, versions, memory, engines."""
    from harness.session import doctor as looking

    found = looking.examine(Path())
    if as_json:
        echo_json(found)
    else:
        width = max(len(finding.topic) for finding in found)
        for finding in found:
            echo(f"{' ' if finding.ok else '!'} {finding.topic:<{width}}  {finding.sentence}")
        wrong = sum(not finding.ok for finding in found)
        echo(f"{wrong} of {len(found)} need attention: lines with !" if wrong else "Nothing is lacking.")
    raise typer.Exit(EXIT_OK if all(finding.ok for finding in found) else EXIT_INFRASTRUCTURE)
