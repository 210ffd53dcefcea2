"""Questions to an engine's class methods, whose mistakes become errors that name engine and place."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import UsageError
from harness.plugins.engine import Engine

_ANSWERS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "limits": ("a text or None", lambda answer: answer is None or isinstance(answer, str)),
    "image_pads": ("a number of tokens or None", lambda answer: answer is None or _is_count(answer)),
    "faults": ("a sequence of texts", lambda answer: _are_texts(answer)),
    "preload": ("a sequence of texts", lambda answer: _are_texts(answer)),
}
"""Allowed answers, in words and as a test."""


def ask(engine: type[Engine], method: str, *arguments: Any) -> Any:
    """Call a class method of an engine and check its answer.

    Raises
    ------
    UsageError
        If it raises, or answers with another type; the message names the engine and the source line.
    """
    try:
        answer = getattr(engine, method)(*arguments)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        place = f"{last.filename}, line {last.lineno}"
        raise UsageError(f"engine {engine.name!r} ({engine.__module__}): {method} raised {said} ({place})") from error
    expected, fits = _ANSWERS[method]
    if not fits(answer):
        raise UsageError(
            f"engine {engine.name!r} ({engine.__module__}): {method} returned {answer!r:.80}; return {expected}"
        )
    return answer


def _is_count(answer: Any) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0


def _are_texts(answer: Any) -> bool:
    return (
        isinstance(answer, Sequence) and not isinstance(answer, str) and all(isinstance(part, str) for part in answer)
    )
