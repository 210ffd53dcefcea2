"""A run made small: the report is whole, and pictures are left where something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import codec, commands, golden_command, packing, session
from harness.errors import FileError, UsageError
from harness.merge import merge
from harness.record import RunFolder
from harness.types import Report


def judged(folder: RunFolder) -> Report:
    report = session.conclude(folder)
    session.write_reports(report, folder.path)
    return report


def pictures(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "runs").glob("*/image-0.png")}


def test_rows_that_pass_lose_their_pictures_and_the_report_stays(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    report = judged(folder)
    assert packing.pack(folder.path, tmp_path / "kept") == (0, len(report.runs))
    assert pictures(tmp_path / "kept") == set()
    assert not list((tmp_path / "kept").rglob("*.safetensors"))
    assert codec.read_json(tmp_path / "kept" / "report.json", Report) == report
    assert RunFolder.open(tmp_path / "kept").runs().keys() == report.runs.keys()
    assert "the picture is not in this folder" in (tmp_path / "kept" / "h.html").read_text()
    assert {"index.html", "summary.md", "junit.xml", "results.csv", "issue.md"} <= {
        path.name for path in (tmp_path / "kept").iterdir()
    }


def test_a_row_that_fails_keeps_all_its_runs(bench: Any, tmp_path: Path, repaint: Any) -> None:
    def only_one(spec: Any, drawing: Any) -> None:
        if spec.world_size > 1 and spec.case.name == "144x144" and spec.plan.axis == "w":
            repaint("candidate")(spec, drawing)

    folder = bench.drawn(golden="off", edit=only_one)
    report = judged(folder)
    (bad,) = [row for row in report.rows if row.verdict and row.verdict.outcome == "fail"]
    packing.pack(folder.path, tmp_path / "kept")
    assert pictures(tmp_path / "kept") == set(bad.runs.values())
    assert list((tmp_path / "kept" / "diffs").glob("*.jpg"))


def test_a_case_without_a_golden_can_be_approved_from_what_was_kept(bench: Any, tmp_path: Path) -> None:
    """The machine that drew it may be gone by the time a person looks."""
    folder = bench.drawn()
    judged(folder)
    packing.pack(folder.path, tmp_path / "kept")
    golden_command.approve(tmp_path / "kept", [], yes=True, by="a person")
    assert session.conclude(bench.drawn()).exit_code == 0


def test_a_case_that_passes_is_left_out_when_a_packed_run_is_approved(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.approved(bench.matrix_file().read_text().replace('["128x128", "144x144"]', '"144x144"'))
    folder = bench.drawn()
    judged(folder)
    packing.pack(folder.path, tmp_path / "kept")
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
    packing.pack(folder.path, kept)
    for use in (commands.compare, commands.resume, lambda path: merge([path], tmp_path / "merged")):
        with pytest.raises(FileError, match=r"image-0\.png: is missing; .* use the run folder that was packed"):
            use(kept)
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_packed(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    with pytest.raises(FileError, match="holds no report"):
        packing.pack(folder.path, tmp_path / "kept")
    judged(folder)
    with pytest.raises(UsageError, match="exists already"):
        packing.pack(folder.path, tmp_path)
