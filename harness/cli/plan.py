"""``sp-harness plan``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.cli._options import Json, check_known, parse_size
from harness.errors import UsageError

app = typer.Typer()


@app.command(epilog="Examples: `sp-harness plan 720x720 --ulysses 2` | `sp-harness plan 1280x720 --ulysses 3 --json`")
def plan(
    size: Annotated[str, typer.Argument(metavar="SIZE", help="WIDTHxHEIGHT in pixels.")],
    ulysses: Annotated[int, typer.Option(help="Ulysses degree: ranks that share the picture.")] = 2,
    ring: Annotated[int, typer.Option(help="Ring degree.")] = 1,
    axis: Annotated[str, typer.Option(help="auto, h or w.")] = "auto",
    as_json: Json = False,
) -> None:
    """Explain how a size is cut: shards, pads, and which axis wins by which rule."""
    from harness import codec
    from harness.cli.console import make_console, print_choice
    from harness.planning.cut import choose_axis

    for name, degree in (("--ulysses", ulysses), ("--ring", ring)):
        if degree < 1:
            raise UsageError(f"{name} {degree}: a degree is at least 1")
    check_known("--axis", axis, ("auto", "h", "w"))
    choice = choose_axis(parse_size(size), ulysses, axis, ring)  # type: ignore[arg-type]
    if as_json:
        typer.echo(json.dumps(codec.encode(choice), indent=2))
    else:
        print_choice(make_console(), choice)
