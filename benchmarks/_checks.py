"""What had to hold, and what was found, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text


@dataclass
class Checks:
    """What was done in one breakdown, and what had to hold afterwards."""

    name: str
    lines: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def done(self, what: str, value: object = "") -> None:
        """Tell something that nothing is asked of."""
        self.lines.append((what, "", str(value), True))

    def holds(self, what: str, expected: object, found: object) -> None:
        """Ask for equality."""
        self.lines.append((what, str(expected), str(found), expected == found))

    def at_most(self, what: str, limit: float, found: float, unit: str) -> None:
        """Ask for no more than a limit."""
        self.lines.append((what, f"at most {limit:.1f} {unit}", f"{found:.1f} {unit}", found <= limit))

    @property
    def ok(self) -> bool:
        """Whether all of it held."""
        return all(line[3] for line in self.lines)

    def table(self, what: str, seconds: float) -> Table:
        """All of it, for a person."""
        title = f"{self.name}: {what} {seconds:.0f} s, {'well' if self.ok else 'NOT well'}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in ("", "expected", "found", ""):
            table.add_column(column, overflow="fold")
        for line, expected, found, ok in self.lines:
            table.add_row(Text(line), Text(expected), Text(found), Text("" if ok else "WRONG"))
        return table
