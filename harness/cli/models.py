"""``sp-harness models``: look after checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli._options import Json, echo, echo_json

app = typer.Typer(name="models", no_args_is_help=True, help="Look after checkpoints.")


@app.command(epilog="Example: `sp-harness models build nano-random`")
def build(
    name: Annotated[str, typer.Argument(help="A built-in model: nano-random.")],
    to: Annotated[Path | None, typer.Option(help="Folder to build into; the cache by default.")] = None,
) -> None:
    """Build a model of random weights, offline and always the same; `nano` is shipped."""
    from harness import models

    echo(models.build(name, to))


@app.command(epilog="Example: `sp-harness models ls`")
def ls(as_json: Json = False) -> None:
    """List the built-in models."""
    from harness import models

    if as_json:
        echo_json(models.names())
        return
    for name in models.names():
        echo(name)
