"""``sp-harness engines``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli._options import check_known

if TYPE_CHECKING:
    from harness.plugins import Engine

app = typer.Typer()
group = typer.Typer(
    name="engines",
    help="Engines, and what a variant of each may ask for.",
    invoke_without_command=True,
    epilog="Examples: `sp-harness engines` | `sp-harness engines show spatial`",
)
app.add_typer(group)


@group.callback()
def engines(context: typer.Context) -> None:
    """List the engines with their axes, layouts and caches; one that cannot be imported with the reason."""
    from harness import plugins
    from harness.errors import UsageError

    if context.invoked_subcommand is not None:
        return
    names = plugins.names("engines")
    width = max(map(len, names))
    for name in names:
        try:
            engine = plugins.load("engines", name)
        except UsageError as error:
            typer.echo(f"{name:<{width}}  {error}")
        else:
            origin = plugins.distribution_of("engines", name) or "sp-harness"
            axes, caches = ", ".join(engine.axes), ", ".join(engine.caches)
            typer.echo(f"{name:<{width}}  axes {axes:<10}  caches {caches:<15}  from {origin}")


@group.command(epilog="Examples: `sp-harness engines show spatial` | `sp-harness engines show cache-dit`")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="Engine.")]) -> None:
    """Show an engine's axes, layouts, caches and options, each option with its values, default and help."""
    import inspect

    from harness import plugins

    check_known("engine", name, plugins.names("engines"))
    engine: type[Engine] = plugins.load("engines", name)
    lines = {
        "engine": f"{name}: {(inspect.getdoc(engine) or '').splitlines()[0]}",
        "from": plugins.distribution_of("engines", name) or "sp-harness",
        "baseline": engine.baseline,
        "axes": ", ".join(engine.axes),
        "layouts": ", ".join(engine.layouts),
        "caches": ", ".join(engine.caches),
        "computes with": ", ".join(engine.packages) or "-",
        "processes for each": ", ".join(engine.load_time) or "-",
        "arithmetic": _arithmetic(engine),
        "planted bugs": str(len(plugins.ask(engine, "faults"))),
    }
    for label, text in lines.items():
        typer.echo(f"{label:<{WIDTH}}{text}")
    for option, declared in engine.options.items():
        typer.echo(f"{f'option {option}':<{WIDTH}}{declared.values()}{_default(declared.default)}")
        if declared.help:
            typer.echo(f"{'':<{WIDTH}}{declared.help}")


WIDTH = 30
"""Of the first column."""


def _default(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else value
    return "" if value is None else f"; {shown} by default"


def _arithmetic(engine: type[Engine]) -> str:
    if not engine.own_arithmetic:
        return f"that of {engine.baseline}"
    bounds = ", ".join(f"{db:g} dB in {dtype}" for dtype, db in engine.control_db.items())
    return f"its own; control at the noise floor{f', or {bounds}' if bounds else ''}"
