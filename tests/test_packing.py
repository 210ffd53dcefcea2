"""A run made small: the report is whole, and pictures are left where something is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness import codec, commands, golden_command, packing, session
from harness.errors import FileError, UsageError
from harness.merge import merge
from harness.record import RunFolder
from harness.types import Report

PX = 64
"""Longest side of reduced pictures: half of the smallest that are drawn here."""


def judged(folder: RunFolder) -> Report:
    report = session.conclude(folder)
    session.write_reports(report, folder.path)
    return report


def pictures(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "runs").glob("*/image-0.png")}


def test_rows_that_pass_keep_small_pictures_and_the_report_stays(bench: Any, tmp_path: Path) -> None:
    folder, kept = bench.drawn(golden="off"), tmp_path / "kept"
    report = judged(folder)
    assert packing.pack(folder.path, kept, PX) == (0, len(report.runs))
    assert pictures(kept) == set()
    assert not list(kept.rglob("*.safetensors"))
    assert codec.read_json(kept / "report.json", Report) == report
    assert RunFolder.open(kept).runs().keys() == report.runs.keys()
    reduced = {path.parent.name for path in (kept / "runs").glob("*/image-0-reduced.jpg")}
    assert reduced == report.runs.keys()
    assert {longest_px(path) for path in kept.rglob("*.jpg")} == {PX}
    assert {"index.html", "summary.md", "junit.xml", "results.csv", "issue.md"} <= {
        path.name for path in kept.iterdir()
    }


def test_the_pages_of_a_packed_run_show_the_same_pictures_reduced(bench: Any, tmp_path: Path) -> None:
    """What a difference shows was counted on whole pictures, and is not counted again on small ones."""
    folder, kept, again = bench.drawn(golden="off"), tmp_path / "kept", tmp_path / "again"
    judged(folder)
    packing.pack(folder.path, kept, PX)
    packing.pack(kept, again, PX // 2)
    whole, small, smaller = (shown(path / "h.html") for path in (folder.path, kept, again))
    assert whole
    assert small == [
        (f"{caption}, reduced", name.replace(".jpg", "-reduced.jpg").replace(".png", "-reduced.jpg"))
        for caption, name in whole
    ]
    assert smaller == small
    assert all((again / name).is_file() for _, name in smaller)
    assert {longest_px(path) for path in again.rglob("*.jpg")} == {PX // 2}
    assert words(again / "h.html") == words(folder.path / "h.html") != []


def longest_px(path: Path) -> int:
    with Image.open(path) as image:
        return max(image.size)


def words(page: Path) -> list[str]:
    """What stands where there is no picture: that two are equal, or one and the same."""
    return re.findall(r'<p class="absent">([^<]*)</p>', page.read_text())


def shown(page: Path) -> list[tuple[str, str]]:
    """Caption and file of every picture on a page, in order."""
    figures = re.findall(
        r"<figcaption><b>[^<]*</b> <small>([^<]*)</small></figcaption>\s*<a href=\"([^\"]*)\">", page.read_text()
    )
    return [(caption, file) for caption, file in figures]


def test_a_row_that_fails_keeps_all_its_runs(bench: Any, tmp_path: Path, repaint: Any) -> None:
    def only_one(spec: Any, drawing: Any) -> None:
        if spec.world_size > 1 and spec.case.name == "144x144" and spec.plan.axis == "w":
            repaint("candidate")(spec, drawing)

    folder = bench.drawn(golden="off", edit=only_one)
    report = judged(folder)
    (bad,) = [row for row in report.rows if row.verdict and row.verdict.outcome == "fail"]
    packing.pack(folder.path, tmp_path / "kept", PX)
    assert pictures(tmp_path / "kept") == set(bad.runs.values())
    names = {path.name for path in (tmp_path / "kept" / "diffs").glob("*.jpg")}
    whole = {path.name for path in (folder.path / "diffs").glob("*.jpg")}
    assert names & whole == {name for name in whole if set(name.split("-")[:2]) <= set(bad.runs.values())} != set()
    assert all(name.endswith("-reduced.jpg") for name in names - whole)


def test_a_case_without_a_golden_can_be_approved_from_what_was_kept(bench: Any, tmp_path: Path) -> None:
    """The machine that drew it may be gone by the time a person looks."""
    folder = bench.drawn()
    judged(folder)
    packing.pack(folder.path, tmp_path / "kept", PX)
    golden_command.approve(tmp_path / "kept", [], yes=True, by="a person")
    assert session.conclude(bench.drawn()).exit_code == 0


def test_a_case_that_passes_is_left_out_when_a_packed_run_is_approved(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.approved(bench.matrix_file().read_text().replace('["128x128", "144x144"]', '"144x144"'))
    folder = bench.drawn()
    judged(folder)
    packing.pack(folder.path, tmp_path / "kept", PX)
    golden_command.approve(tmp_path / "kept", [], yes=True, by="a person")
    said = capsys.readouterr().out
    assert "128x128: new" in said
    assert "left out, their pictures are in the run folder that was packed: 144x144" in said
    assert session.conclude(bench.drawn()).exit_code == 0
    with pytest.raises(UsageError, match=r"holds no picture of case '144x144'.* approve it from the run folder"):
        golden_command.approve(tmp_path / "kept", ["144x144"], yes=True, by="a person")


def test_what_needs_every_picture_says_where_they_are(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    judged(folder)
    kept = tmp_path / "kept"
    packing.pack(folder.path, kept, PX)
    for use in (commands.compare, commands.resume, lambda path: merge([path], tmp_path / "merged")):
        with pytest.raises(FileError, match=r"image-0\.png: is missing; .* use the run folder that was packed"):
            use(kept)
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_packed(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    with pytest.raises(FileError, match="holds no report"):
        packing.pack(folder.path, tmp_path / "kept", PX)
    judged(folder)
    with pytest.raises(UsageError, match="exists already"):
        packing.pack(folder.path, tmp_path, PX)
