"""``report.json``: the whole report, to be read again by ``compare``, ``approve`` and ``report``."""

from __future__ import annotations

from pathlib import Path

from harness.codec import write_json
from harness.plugins import Reporter
from harness.types import Report


class JsonReporter(Reporter):
    """Writes what the others are drawn from; the schema is described in ``docs/report.md``."""

    name = "json"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``report.json`` and return its path."""
        path = folder / "report.json"
        write_json(path, report)
        return path
