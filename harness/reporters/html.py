"""``index.html`` and one page for each axis choice: a folder that opens from disk, with no network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.files import write_text
from harness.plugins import Reporter
from harness.reporters import _costs as costs
from harness.reporters import _layouts as sides
from harness.reporters import _steps as steps
from harness.reporters import _story as story
from harness.reporters import _words as words
from harness.reporters._pages import PageBuilder, RowView
from harness.types import Report

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "style.css"

AXIS_WORDS = {
    "auto": "Every request is cut along the axis that needs fewer pad tokens, as the engine would choose by itself.",
    "h": "Every picture is cut across its height: each rank holds rows of image tokens.",
    "w": "Every picture is cut across its width: each rank holds columns of image tokens.",
    "none": "These engines split the sequence of tokens by themselves, without regard to rows or columns.",
}

SHOWN_COMPARISONS = 12
"""Comparisons of layouts on the overview; the rest unfolds."""

BESIDES = {
    "report.json": "everything, for programs",
    "results.csv": "all figures, for a spreadsheet",
    "summary.md": "for a pull request",
    "junit.xml": "for a CI system",
}
"""Files of the other formats; a run writes all of them, some after the pages."""


class HtmlReporter(Reporter):
    """Writes the pages; pictures stay files beside them and are loaded when a row is opened."""

    name = "html"

    def write(self, report: Report, folder: Path) -> Path:
        """Write all pages and return ``index.html``."""
        rows = PageBuilder(report, folder).rows(words.worst_first(report.rows))
        templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        axes = words.axes_of(report)
        shared = {"report": report, "axes": axes, "words": words, "story": story, "rows": rows}
        for axis in axes:
            own = [view for view in rows if view.row.variant.axis == axis]
            page = templates.get_template("axis.html.j2").render(
                **shared, axis=axis, axis_words=AXIS_WORDS[axis], own=own, tally=_tally(own), box=steps
            )
            write_text(folder / f"{axis}.html", page)
        index = templates.get_template("index.html.j2").render(
            **shared,
            links={view.row.name: f"{view.page}#{view.anchor}" for view in rows},
            table=_case_table(rows, axes, report),
            tally=_tally(rows),
            both=sides.side_by_side(report),
            sides=sides,
            costs=costs,
            SHOWN=SHOWN_COMPARISONS,
            files=list(BESIDES.items()),
        )
        (folder / "assets").mkdir(exist_ok=True)
        shutil.copyfile(TEMPLATES / STYLE, folder / "assets" / STYLE)
        return write_text(folder / "index.html", index)


def _tally(rows: list[RowView]) -> list[tuple[str, str, int]]:
    """Word, style and number of each outcome."""
    found = words.counts(view.row for view in rows)
    return [(word := words.outcome_word(outcome), word.replace(" ", "-"), number) for outcome, number in found]


def _case_table(rows: list[RowView], axes: list[str], report: Report) -> list[dict[str, Any]]:
    """One line per case, failing ones first, with the rows of each axis; variants keep the matrix' order."""
    order = {row.name: place for place, row in enumerate(report.rows)}
    lines: dict[str, dict[str, Any]] = {}
    for view in rows:
        case = view.row.case
        line = lines.setdefault(case.name, {"case": case, "cells": {axis: [] for axis in axes}})
        line["cells"][view.row.variant.axis].append(view)
    for line in lines.values():
        for cell in line["cells"].values():
            cell.sort(key=lambda view: order[view.row.name])
    return list(lines.values())
