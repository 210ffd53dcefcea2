"""``sp-harness plan``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli._options import Json, check_known, echo, parse_size
from harness.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.types import AxisChoice

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
    from harness.cli.console import make_console
    from harness.planning.cut import choose_axis
    from harness.types import MOST_RANKS

    for name, degree in (("--ulysses", ulysses), ("--ring", ring)):
        if degree < 1:
            raise UsageError(f"{name} {degree}: a degree is at least 1")
    if ulysses * ring > MOST_RANKS:
        raise UsageError(f"--ulysses {ulysses} times --ring {ring} is more than {MOST_RANKS} ranks")
    check_known("--axis", axis, ("auto", "h", "w"))
    choice = choose_axis(parse_size(size), ulysses, axis, ring)  # type: ignore[arg-type]
    if as_json:
        echo(json.dumps(codec.encode(choice), indent=2))
    else:
        show(make_console(), choice)


def show(console: Console, choice: AxisChoice) -> None:
    """Explain both cuts of one size and which of them wins."""
    from rich.table import Table

    from harness.cli.console import print_table

    console.print(
        f"{choice.size}: {choice.tokens_h} rows x {choice.tokens_w} columns = "
        f"{choice.tokens_h * choice.tokens_w} image tokens, {choice.single_pad_tokens} pads on one device"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("axis", "shards", "local tokens", "target", "pads", "surplus", ""):
        table.add_column(column)
    for axis, plan in choice.axes.items():
        chosen = "chosen: " + choice.rule if axis == choice.chosen_axis else plan.reason
        shards, local = ("+".join(map(str, values)) for values in (plan.shard_tokens, plan.local_tokens))
        numbers = (plan.sequence_target, plan.pad_tokens, plan.surplus_pad_tokens)
        table.add_row(axis, shards, local, *map(str, numbers), chosen)
    print_table(console, table)
    if choice.chosen_axis is None:
        console.print(choice.rule)
