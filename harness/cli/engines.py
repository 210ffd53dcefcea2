"""``sp-harness engines``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli._options import Json, RunPath, check_known, echo, echo_json

if TYPE_CHECKING:
    from harness.plugins import Engine

app = typer.Typer()
group = typer.Typer(
    name="engines",
    help="Engines, and what a variant of each may ask for.",
    invoke_without_command=True,
    epilog="Examples: `sp-harness engines` | `sp-harness engines show spatial` | "
    "`sp-harness engines setup sglang --version 0.5.9 --cpu`",
)
app.add_typer(group)


@group.callback()
def engines(context: typer.Context, as_json: Json = False) -> None:
    """List the engines with their axes, layouts and caches; one that cannot be imported with the reason."""
    from harness import plugins
    from harness.errors import UsageError

    if context.invoked_subcommand is not None:
        return
    names = plugins.names("engines")
    width = max(map(len, names))
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            engine = plugins.load("engines", name)
        except UsageError as error:
            found[name] = {"problem": str(error)}
        else:
            origin = plugins.distribution_of("engines", name) or "sp-harness"
            found[name] = {"axes": engine.axes, "layouts": engine.layouts, "caches": engine.caches, "from": origin}
    if as_json:
        echo_json(found)
        return
    for name, engine in found.items():
        if "problem" in engine:
            echo(f"{name:<{width}}  {engine['problem']}")
            continue
        axes, caches = ", ".join(engine["axes"]), ", ".join(engine["caches"])
        echo(f"{name:<{width}}  axes {axes:<10}  caches {caches:<15}  from {engine['from']}")


@group.command(epilog="Examples: `sp-harness engines show spatial` | `sp-harness engines show cache-dit`")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="Engine.")], as_json: Json = False) -> None:
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
        "environments": ", ".join(_environments(name)) or "this one",
        "engines setup makes": ", ".join(_releases(name)) or "-",
    }
    if as_json:
        options = {
            option: {"values": declared.values(), "default": declared.default, "help": declared.help}
            for option, declared in engine.options.items()
        }
        echo_json({**lines, "options": options})
        return
    for label, text in lines.items():
        echo(f"{label:<{WIDTH}}{text}")
    for option, declared in engine.options.items():
        echo(f"{f'option {option}':<{WIDTH}}{declared.values()}{_default(declared.default)}")
        if declared.help:
            echo(f"{'':<{WIDTH}}{declared.help}")


@group.command(
    epilog="Examples: `sp-harness engines setup sglang --cpu` | `sp-harness engines setup sglang --version 0.5.9 --cpu`"
)
def setup(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Engine.")],
    version: Annotated[str | None, typer.Option(help="Release; the newest that has a lock file by default.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="For machines without a GPU.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="The environments.toml to enter it in; the user's own by default.")
    ] = None,
) -> None:
    """Make an environment of an engine's release from its lock file, and enter it in environments.toml."""
    from harness import models, plugins
    from harness.environments import setup as setting_up
    from harness.environments import table

    check_known("engine", name, plugins.names("engines"))
    release, lock = setting_up.lock_of(name, version, "cpu" if cpu else "cuda")
    entries = file or table.user_file()
    table.read(entries)  # a mistake in it is better known before minutes of installing
    python = setting_up.make(name, lock, models.cache_dir().absolute() / "environments" / lock.stem, echo)
    table.enter(entries, name, release, str(python))
    echo(f'{entries}: {table.address(name, release)} is entered; a variant runs there by environment = "{release}"')


@group.command(epilog="Example: `sp-harness engines verified reports/engines-20260101-120000`")
def verified(run_folder: RunPath) -> None:
    """Print which features of which engines pass at which sizes, as a Markdown table."""
    from harness.reporting import engine_table
    from harness.runs.folder import read_report

    echo(engine_table.verified(read_report(run_folder)), nl=False)


@group.command(
    epilog="Examples: `sp-harness engines page reports/engines-20260101-120000` | "
    "`sp-harness engines page reports/engines-20260101-120000 sglang`"
)
def page(
    run_folder: RunPath,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Engine; all by default.")] = None,
) -> None:
    """Print a Markdown page for an engine's maintainers: every row, its verdict, cause and figures."""
    from harness.reporting import engine_table
    from harness.runs.folder import read_report

    report = read_report(run_folder)
    if name is not None:
        check_known("engine", name, {row.variant.engine for row in report.rows})
    echo(engine_table.page(report, name or ""), nl=False)


WIDTH = 30
"""Of the first column."""


def _environments(name: str) -> list[str]:
    """List the user's environments of an engine, ``sglang@0.5.9: PYTHON``."""
    from harness.environments import table

    known = table.read(table.user_file())
    return [f"{address}: {python}" for address, python in known.items() if address.partition("@")[0] == name]


def _releases(name: str) -> list[str]:
    from harness.environments import locks

    on_cpu = [f"{version} --cpu" for version in locks.versions(name, "cpu")]
    return [*locks.versions(name, "cuda"), *on_cpu]


def _default(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else value
    return "" if value is None else f"; {shown} by default"


def _arithmetic(engine: type[Engine]) -> str:
    if not engine.own_arithmetic:
        return f"that of {engine.baseline}"
    bounds = ", ".join(f"{db:g} dB in {dtype}" for dtype, db in engine.control_db.items())
    return f"its own; control at the noise floor{f', or {bounds}' if bounds else ''}"
