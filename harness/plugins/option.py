"""Options of an engine, declared once: type, default, allowed values, help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from harness.errors import did_you_mean

Value = bool | int | float | str
"""Value of an option, as TOML has it."""

_TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Option:
    """Declaration of one key that a variant's ``options`` may hold; planning refuses any other value.

    An integer is also taken where a float is asked for.
    """

    type: type[Value]
    default: Value | None = None
    """Used where a variant does not name the option; ``None`` where that depends, which ``help`` explains."""
    help: str = ""
    """One line for a person who writes a matrix."""
    choices: tuple[Value, ...] = ()
    """All values there are; empty where any of the type will do."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    """Limits of a number: at least, above, at most, below."""
    pattern: str = ""
    """Regular expression that the whole text must match; ``help`` says it in words."""
    excludes: tuple[str, ...] = ()
    """Options that would have no effect beside this one; planning refuses them."""

    def __post_init__(self) -> None:
        if self.default is not None and (problem := self.problem(self.default)) is not None:
            raise ValueError(f"an option's default is {self.default!r}; {problem}")

    def problem(self, value: Any) -> str | None:
        """Say what to write instead of ``value``, or ``None`` where it is allowed."""
        if self.choices:
            allowed = any(value == choice and type(value) is type(choice) for choice in self.choices)
            return None if allowed else did_you_mean(str(value), [_as_toml(choice) for choice in self.choices])
        fits = type(value) is self.type or (self.type is float and type(value) is int)
        if fits and self._in_range(value) and re.fullmatch(self.pattern or ".*", str(value), re.DOTALL):
            return None
        return f"write {self.values()}" + (f": {self.help}" if self.help and self.pattern else "")

    def values(self) -> str:
        """Describe the allowed values in a few words, such as ``a number above 0 and below 1``."""
        if self.choices:
            return "one of " + ", ".join(map(_as_toml, self.choices))
        limits = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        parts = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
        return " ".join([_TYPE_NAMES[self.type], " and ".join(parts)]).strip()

    def _in_range(self, value: Any) -> bool:
        return not (
            (self.ge is not None and value < self.ge)
            or (self.gt is not None and value <= self.gt)
            or (self.le is not None and value > self.le)
            or (self.lt is not None and value >= self.lt)
        )


def _as_toml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
