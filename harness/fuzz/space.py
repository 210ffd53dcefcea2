"""Search space of the fuzzer: an engine under test, and limits that keep an example short."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from harness import plugins
from harness.errors import UsageError, did_you_mean
from harness.plugins import Option
from harness.plugins.option import Value


@dataclass(frozen=True)
class Space:
    """The limits within which examples are drawn."""

    engine: str
    model: str
    max_ranks: int = 3
    fault: str | None = None
    max_side_tokens: int = 20
    max_tokens: int = 160
    sequences: int = 24
    """One example in about so many is a sequence, for which an engine is started anew; 0 for none."""
    timeout_s: float = 60.0
    options: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Values to draw of each option; an option that is not named keeps its default."""
    environment: str = ""
    """Name of the environment that the engine runs in."""
    python: tuple[str, ...] = ()
    """Interpreters of engines, ``ENGINE[@NAME]=PYTHON``."""


def check(space: Space) -> None:
    """Refuse what cannot be fuzzed, before anything is started.

    Raises
    ------
    UsageError
        If hypothesis is missing, or engine or fault do not exist.
    """
    if importlib.util.find_spec("hypothesis") is None:
        raise UsageError("fuzzing needs the package hypothesis; pip install 'sp-harness[fuzz]'")
    if space.max_ranks < 2:
        raise UsageError(f"--max-ranks {space.max_ranks}: a split takes at least 2 ranks")
    faults = plugins.ask(plugins.load("engines", space.engine), "faults")
    if space.fault and space.fault not in faults:
        raise UsageError(f"--fault {space.fault!r}: {did_you_mean(space.fault, faults)}")


def read_options(engine: str, words: Sequence[str]) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    """Read ``NAME=VALUE,...`` of the command line by the engine's own declarations.

    Raises
    ------
    UsageError
        If the engine has no such option, or it takes no such value.
    """
    declared = plugins.load("engines", engine).options
    found = []
    for word in words:
        name, equals, values = word.partition("=")
        if name not in declared:
            raise UsageError(f"--option {word!r}: {engine} has no option {name!r}; {did_you_mean(name, declared)}")
        if not equals:
            raise UsageError(f"--option {word!r}: write {name}=VALUE,...; {declared[name].values()}")
        found.append((name, tuple(_value(word, declared[name], text) for text in values.split(","))))
    return tuple(found)


def _value(word: str, option: Option, text: str) -> Value:
    try:
        value = {"true": True, "false": False}[text] if option.type is bool else option.type(text)
    except (KeyError, ValueError):
        value = text
    if (problem := option.problem(value)) is not None:
        raise UsageError(f"--option {word!r}: {text!r} is no value of it; {problem}")
    return value
