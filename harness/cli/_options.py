"""Arguments that several commands share, and how they print lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import UsageError, did_you_mean
from harness.reporting.escape import printable
from harness.types import Size

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, such as reports/pr-20260101-120000.")]
Python = Annotated[
    list[str] | None,
    typer.Option(metavar="ENGINE[@NAME]=PYTHON", help="Interpreter that an engine runs in; NAME: of this environment."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def echo(message: object, nl: bool = True, err: bool = False) -> None:
    """Print text whose control characters are shown and not obeyed: names and paths are others' choice."""
    text = printable(str(message))
    print(text, end="\n" if nl else "", file=sys.stderr if err else sys.stdout, flush=True)


def echo_json(value: Any) -> None:
    """Print a dataclass, or plain data that may hold some, as JSON."""
    from harness import codec

    echo(json.dumps(codec.encode(value), indent=2))


def check_known(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those known, and name the nearest.

    Raises
    ------
    UsageError
        If it is not known.
    """
    known = list(known)
    if value not in known:
        raise UsageError(f"{option} {value!r}: {did_you_mean(value, known)}")


def parse_size(text: str) -> Size:
    """Parse ``WIDTHxHEIGHT``.

    Raises
    ------
    UsageError
        If it is no size.
    """
    try:
        return Size.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
