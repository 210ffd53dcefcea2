"""report.json, junit.xml, results.csv, summary.md: read back and checked."""

from __future__ import annotations

import dataclasses
import json
import typing
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.codec import read_json
from harness.plugins import load, names
from harness.reporters.markdown import MAX_CHARACTERS, escape
from harness.types import SCHEMA, Report, Row

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def write(name: str, sample: Any) -> Path:
    return load("reporters", name)().write(sample.report, sample.folder)


def test_the_five_formats() -> None:
    assert names("reporters") == ["csv", "html", "issue", "json", "junit", "markdown"]


@pytest.mark.parametrize("name", names("reporters"))
def test_an_empty_report_and_hostile_text_break_no_format(name: str, new_sample: Any, mixed: Any) -> None:
    empty = new_sample()
    assert write(name, empty).is_file()
    row = mixed.rows[0]
    hostile = replace(row, case=replace(row.case, name="../x|y<b>\x00\ud800", prompts=("\ud800 \x07",)))
    mixed.rows.append(hostile)
    assert write(name, mixed).stat().st_size > 0


# ---------------------------------------------------------------- report.json


def test_json_reads_back_as_the_same_report(mixed: Any) -> None:
    path = write("json", mixed)
    assert path.name == "report.json"
    assert read_json(path, Report, SCHEMA) == mixed.report
    assert "Infinity" not in path.read_text()
    assert "NaN" not in path.read_text()


def test_every_field_is_documented() -> None:
    text, missing = DOCS.read_text(encoding="utf-8"), []
    seen: set[Any] = set()

    def visit(kind: Any) -> None:
        for part in typing.get_args(kind):
            visit(part)
        if not dataclasses.is_dataclass(kind) or kind in seen:
            return
        seen.add(kind)
        section = text.partition(f"## {kind.__name__}\n")[2].partition("\n## ")[0]
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if f"`{field.name}`" not in section:
                missing.append(f"{kind.__name__}.{field.name}")
            visit(hints[field.name])

    visit(Report)
    assert missing == []
    assert len(seen) > 12


# ---------------------------------------------------------------- junit.xml


def junit_cases(path: Path) -> dict[tuple[str | None, str | None], ET.Element]:
    root = ET.parse(path).getroot()
    return {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}


def test_junit_has_a_case_for_each_row(mixed: Any) -> None:
    path = write("junit", mixed)
    root, cases = ET.parse(path).getroot(), junit_cases(path)
    assert len(cases) == len(mixed.rows) == int(root.get("tests", ""))
    assert [suite.get("name") for suite in root] == [f"sample axis {axis}" for axis in ("auto", "h", "w", "none")]
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("2", "2", "2")
    tags = {name: [child.tag for child in case if child.tag != "system-out"] for name, case in cases.items()}
    assert tags["sample.144x144", "spatial-u2-h"] == []
    assert tags["sample.128x128", "spatial-u2-w"] == ["failure"]
    assert tags["sample.112x64-new", "fake-u2"] == ["failure"]
    assert tags["sample.96x64-nasty", "spatial-u2-h"] == ["error"]
    assert tags["sample.96x64-nasty", "spatial-u2-w"] == ["error"]
    assert tags["sample.112x64-new", "spatial-u2-h"] == ["skipped"]
    assert cases["sample.144x144", "spatial-u2-h"].get("time") == "2.500"
    said = cases["sample.144x144", "spatial-u2-h"].findtext("system-out") or ""
    assert {"pair image: 31.4 dB / 0.9877", "golden image: 44.4 dB / 0.9877"} <= set(said.splitlines())


def test_junit_says_what_failed_and_carries_the_traceback(mixed: Any) -> None:
    cases = junit_cases(write("junit", mixed))
    failure = cases["sample.128x128", "spatial-u2-w"].find("failure")
    assert failure is not None
    assert "exchange is 21.1 dB" in failure.get("message", "")
    assert failure.get("type") == "ranks swapped in the gather"
    error = cases["sample.96x64-nasty", "spatial-u2-h"].find("error")
    assert error is not None
    assert "RuntimeError: <boom> & \ufffdmore" in (error.text or "")
    assert "rank 1" in (error.text or "")


# ---------------------------------------------------------------- results.csv


@pytest.fixture
def frame(mixed: Any) -> pd.DataFrame:
    return pd.read_csv(write("csv", mixed))


def test_csv_has_a_line_for_each_row_and_relation(frame: pd.DataFrame, mixed: Any) -> None:
    assert len(frame) == sum(max(1, len(row.comparisons)) for row in mixed.rows)
    assert set(frame["row"]) == {row.name for row in mixed.rows}
    line = frame[(frame["row"] == "128x128/spatial-u2-w") & (frame["relation"] == "exchange")].iloc[0]
    assert (line["latents_psnr_db"], line["image_ssim"], line["image_max_abs_of_255"]) == (21.1, 0.98765, 3)
    assert (line["outcome"], line["ok"], line["bound"], line["bound_source"]) == ("fail", False, 100.0, "floor")
    assert line["cause"] == "ranks swapped in the gather"


def test_csv_leaves_a_figure_empty_where_equal(frame: pd.DataFrame) -> None:
    line = frame[(frame["row"] == "144x144/spatial-u2-h") & (frame["relation"] == "control")].iloc[0]
    assert line["exact"]
    assert pd.isna(line["latents_psnr_db"])
    other = frame[(frame["row"] == "144x144/spatial-u2-h") & (frame["relation"] == "layout")].iloc[0]
    assert not other["exact"]


def test_csv_has_the_plan_and_keeps_whole_numbers_whole(mixed: Any, frame: pd.DataFrame) -> None:
    line = frame[frame["row"] == "144x144/spatial-u2-w"].iloc[0]
    assert (line["axis_asked"], line["axis_used"], line["shard_tokens"]) == ("w", "w", "5|4")
    assert (line["pad_tokens"], line["single_pad_tokens"], line["surplus_pad_tokens"]) == (47, 15, 32)
    text = (mixed.folder / "results.csv").read_text()
    assert ",47," in text
    assert "47.0" not in text


def test_csv_keeps_rows_without_figures(frame: pd.DataFrame) -> None:
    line = frame[frame["row"] == "112x64-new/spatial-u2-h"].iloc[0]
    assert (line["outcome"], line["sentence"]) == ("skip", "3 ranks do not divide 4 heads")
    assert pd.isna(line["relation"])


# ---------------------------------------------------------------- summary.md


def table_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]


def test_markdown_puts_failing_rows_first_with_their_sentence(mixed: Any) -> None:
    path = write("markdown", mixed)
    text, lines = path.read_text(encoding="utf-8"), table_lines(path)
    assert text.startswith("## Splitting damages the picture at 128x128 on w, and 3 more rows do not pass.\n")
    assert "1 fail, 1 error, 1 timeout, 1 no golden, 1 not judged, 1 skip, 5 pass" in text
    assert "Exit code 1: a verdict fails" in text
    assert len(lines) == len(mixed.rows)
    assert "❌ fail" in lines[0]
    assert "exchange is 21.1 dB" in lines[0]
    assert lines[-1].startswith("| ✅ pass")
    for word in ("exchange", "control", "layout", "pair", "golden"):
        assert f"- **{word}**: " in text


def test_markdown_row_states_plan_and_figures(good: Any) -> None:
    line = table_lines(write("markdown", good))[0]
    cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
    expected = ["144x144 (spatial-u2-auto)", "144x144", "auto → h", "5 / 4", "47 / 15 (+32)"]
    assert cells[1:6] == expected
    pictures = ["31.4 dB / 0.9877", "44.4 dB / 0.9877"]
    assert cells[6:] == ["143.2 dB", "exact", "31.4 dB", "31.4 dB", "44.4 dB", *pictures]


def test_markdown_escapes_every_kind_of_markup() -> None:
    assert escape("a|b\n<img src=x> `c` [d](e) *f* @all &amp;") == (
        "a\\|b &lt;img src=x&gt; \\`c\\` \\[d\\](e) \\*f\\* &#64;all &amp;amp;"
    )


def test_markdown_says_how_many_rows_are_left_out(good: Any) -> None:
    row: Row = good.rows[0]
    good.rows += [replace(row, case=replace(row.case, name=f"case-{number}")) for number in range(900)]
    path = write("markdown", good)
    text, shown = path.read_text(encoding="utf-8"), len(table_lines(path))
    assert len(text) <= MAX_CHARACTERS
    assert 100 < shown < 903
    assert f"{903 - shown} of 903 rows are left out here" in text
    assert text.rstrip().endswith("took 83 s.")


def test_partial_reports_say_so(good: Any) -> None:
    good.changes["complete"] = False
    assert "partial" in write("markdown", good).read_text(encoding="utf-8")
    assert 'name="complete" value="false"' in write("junit", good).read_text()
    assert json.loads(write("json", good).read_text())["complete"] is False
