"""Names of the rows' pages in a report's folder."""

from __future__ import annotations

from collections.abc import Iterable

from harness.reporting.golden_copies import slug
from harness.types import Row

FOLDER = "rows"
LONGEST_NAME = 150


def names_of(rows: Iterable[Row]) -> list[str]:
    """Make a name of each row, for its file and for its line on the overview, unique over all rows of a report.

    Parameters
    ----------
    rows
        All rows, in the order of the report.
    """
    found: dict[str, str] = {}  # by lower case, which some file systems take for the same
    for row in rows:
        wanted = slug(row.name)[:LONGEST_NAME]
        name, number = wanted, 1
        while name.lower() in found:
            number += 1
            name = f"{wanted}_{number}"
        found[name.lower()] = name
    return list(found.values())


def page_of(name: str) -> str:
    """Return the file of a row's page, relative to the report."""
    return f"{FOLDER}/{name}.html"
