"""``report.json``: the whole report, to be read again by ``compare``, ``approve`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from harness.codec import write_json
from harness.types import Report


class JsonReporter:
    """Writes what the others are drawn from; the schema is described in ``docs/report.md``."""

    name: ClassVar[str] = "json"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``report.json`` and return its path."""
        path = folder / "report.json"
        write_json(path, report)
        return path
