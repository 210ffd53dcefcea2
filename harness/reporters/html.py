"""``index.html``, the same for each axis choice, and one page for each row; all open from disk, without network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
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
from harness.reporting import row_pages
from harness.types import Report

TEMPLATES = Path(__file__).parent / "templates"
ASSETS = "assets"
"""Folder of style sheets and scripts, among the templates and in a report."""

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
    """Writes the pages; pictures stay files beside them and are loaded when they are looked at."""

    name = "html"

    def write(self, report: Report, folder: Path) -> Path:
        """Write all pages and return ``index.html``."""
        rows = PageBuilder(report, folder).rows(words.worst_first(report.rows))
        _write_rows(rows, folder, {"report": report, "words": words, "rows": rows})
        axes = words.axes_of(report)
        for axis in axes if len(axes) > 1 else ():
            own = [view for view in rows if view.row.variant.axis == axis]
            part = replace(report, rows=tuple(row for row in report.rows if row.variant.axis == axis))
            write_text(folder / f"{axis}.html", _overview(part, own, axes, axis))
        shutil.copytree(TEMPLATES / ASSETS, folder / ASSETS, dirs_exist_ok=True)
        return write_text(folder / "index.html", _overview(report, rows, axes))


def _overview(report: Report, rows: list[RowView], axes: list[str], axis: str = "") -> str:
    """Render the overview of all rows, or of those of one axis choice."""
    shown = [axis] if axis else axes
    return (
        _templates()
        .get_template("index.html.j2")
        .render(
            report=report,
            words=words,
            rows=rows,
            root="",
            story=story,
            axis=axis,
            pages=axes if len(axes) > 1 else [],
            axes=shown,
            axis_words=AXIS_WORDS,
            links={view.row.name: view.page for view in rows},
            table=_case_table(rows, shown, report),
            tally=_tally(rows),
            choices=_choices(rows),
            both=sides.side_by_side(report),
            sides=sides,
            costs=costs,
            SHOWN=SHOWN_COMPARISONS,
            files=list(BESIDES.items()),
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write_rows(rows: Sequence[RowView], folder: Path, shared: dict[str, Any]) -> None:
    """Write the rows' pages anew, each with links to its neighbours; pages of earlier versions are removed."""
    shutil.rmtree(folder / row_pages.FOLDER, ignore_errors=True)
    for axis in AXIS_WORDS:
        (folder / f"{axis}.html").unlink(missing_ok=True)
    template = _templates().get_template("row.html.j2")
    for place, (before, after) in enumerate(pairwise([None, *rows, None]), -1):
        if before is not None:
            previous = rows[place - 1] if place else None
            page = template.render(
                **shared, root="../", view=before, place=place, previous=previous, following=after, box=steps
            )
            write_text(folder / before.page, page)


def _tally(rows: list[RowView]) -> list[tuple[str, str, int]]:
    """Word, style and number of each outcome."""
    found = words.counts(view.row for view in rows)
    return [(word := words.outcome_word(outcome), word.replace(" ", "-"), number) for outcome, number in found]


def _choices(rows: Sequence[RowView]) -> dict[str, list[str]]:
    """List what rows can be chosen by, each where there are two values at least."""
    found: dict[str, list[str]] = {
        "cause": [view.cause for view in rows if view.cause],
        "engine": [view.row.variant.engine for view in rows],
        "axis": [view.row.variant.axis for view in rows],
        "size": [str(view.row.case.size) for view in rows],
    }
    values = {name: list(dict.fromkeys(found[name])) for name in found}
    return {name: some for name, some in values.items() if len(some) > 1 or (name == "cause" and some)}


def _case_table(rows: list[RowView], axes: list[str], report: Report) -> list[dict[str, Any]]:
    """One line per case, failing ones first, with the rows of each axis; variants keep the matrix' order."""
    order = {row.name: place for place, row in enumerate(report.rows)}
    lines: dict[str, dict[str, Any]] = {}
    for place, view in enumerate(rows):
        case = view.row.case
        line = lines.setdefault(case.name, {"case": case, "cells": {axis: [] for axis in axes}})
        line["cells"][view.row.variant.axis].append((place, view))
    for line in lines.values():
        for cell in line["cells"].values():
            cell.sort(key=lambda placed: order[placed[1].row.name])
    return list(lines.values())
