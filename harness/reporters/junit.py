"""``junit.xml``: what a CI system reads. One suite per axis choice, one test case per row."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from harness.diagnose.sentence import describe_image
from harness.files import write_text
from harness.plugins import Reporter
from harness.reporters._words import (
    COLUMNS,
    IMAGE_COLUMNS,
    NOT_JUDGED,
    axes_of,
    figure_text,
    outcome_of,
    pads_text,
    run_of,
    sentence_of,
    shards_text,
)
from harness.types import Outcome, Report, Row

# XML 1.0 knows no way to write these, escaped or not; a prompt or a traceback may hold them.
ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ELEMENTS = {
    Outcome.FAIL: "failure",
    Outcome.NO_GOLDEN: "failure",
    Outcome.ERROR: "error",
    Outcome.TIMEOUT: "error",
    Outcome.SKIP: "skipped",
    None: "skipped",
}


class JunitReporter(Reporter):
    """Writes the rows as test cases: failures are wrong pictures, errors are runs without one."""

    name = "junit"

    def write(self, report: Report, folder: Path) -> Path:
        """Write ``junit.xml`` and return its path."""
        root = ET.Element("testsuites", name=_legal(report.matrix.name))
        for axis in axes_of(report):
            root.append(_suite(report, axis, [row for row in report.rows if row.variant.axis == axis]))
        for total in ("tests", "failures", "errors", "skipped"):
            root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
        root.set("time", f"{report.wall_s:.3f}")
        ET.indent(root)
        text = ET.tostring(root, encoding="unicode")
        return write_text(folder / "junit.xml", f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n")


def _suite(report: Report, axis: str, rows: list[Row]) -> ET.Element:
    cases = [_case(report, row) for row in rows]
    suite = ET.Element("testsuite", name=_legal(f"{report.matrix.name} axis {axis}"))
    suite.set("tests", str(len(cases)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    suite.set("timestamp", _legal(report.started_at))
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(report):
        ET.SubElement(properties, "property", name=_legal(key), value=_legal(value))
    suite.extend(cases)
    return suite


def _properties(report: Report) -> list[tuple[str, str]]:
    own = [("platform", report.platform), ("golden", report.golden), ("complete", str(report.complete).lower())]
    return own + [("note", note) for note in report.notes] + list(report.environment.items())


def _case(report: Report, row: Row) -> ET.Element:
    candidate = run_of(report, row, "candidate")
    case = ET.Element(
        "testcase",
        classname=_legal(f"{report.matrix.name}.{row.case.name}"),
        name=_legal(row.variant.label),
        time=f"{candidate.wall_s if candidate else 0.0:.3f}",
    )
    tag = ELEMENTS.get(outcome_of(row))
    if tag is not None:
        result = ET.SubElement(case, tag, message=_legal(sentence_of(row)))
        if tag != "skipped":
            result.set("type", (row.verdict.cause if row.verdict else None) or str(outcome_of(row) or NOT_JUDGED))
            result.text = _legal(_explanation(report, row))
    ET.SubElement(case, "system-out").text = _legal(_figures(row))
    return case


def _explanation(report: Report, row: Row) -> str:
    """Judgements, then the failure of every run of the row with its traceback or stacks."""
    lines = [j.sentence for j in row.verdict.judgements] if row.verdict else []
    if row.verdict and row.explanation:
        lines += [f"cause: {row.verdict.cause or 'unknown'}", *row.verdict.evidence]
    for role, digest in row.runs.items():
        failure = report.runs[digest].failure if digest in report.runs else None
        if failure is not None:
            rank = "" if failure.rank is None else f", rank {failure.rank}"
            lines += [f"{role} ({failure.kind.value}{rank}): {failure.message}", failure.detail]
    return "\n".join(lines) or sentence_of(row)


def _figures(row: Row) -> str:
    lines = [f"{name}: {figure_text(row.comparison(relation))}" for name, relation in COLUMNS]
    lines += [f"{name}: {describe_image(row.comparison(relation))}" for name, relation in IMAGE_COLUMNS.items()]
    if row.plan is not None:
        split = f"axis {row.plan.axis}, shards {shards_text(row.plan)}, pads split / single (surplus) {pads_text(row)}"
        lines.insert(0, split)
    return "\n".join(lines)


def _legal(text: str) -> str:
    return ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
