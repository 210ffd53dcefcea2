"""Search space of the fuzzer: an engine under test, and limits that keep an example short."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from harness import plugins
from harness.errors import UsageError, did_you_mean


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
