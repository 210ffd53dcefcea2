"""A run made small: the report is whole, and pictures are left where something is wrong."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness import codec
from harness.cli.approve import approve
from harness.cli.compare import compare
from harness.cli.run import resumed
from harness.errors import FileError, InfrastructureError, UsageError
from harness.reporting.difference_index import DifferenceIndex
from harness.runs.folder import RunFolder
from harness.runs.merge import merge
from harness.session import pack, steps
from harness.types import Report

BATCH = """
[[case]]
name = "batch"
size = "144x144"
prompt = ["waves", "more waves"]
"""
PX = 64
"""Longest side of reduced pictures: half of the smallest that are drawn here."""


def judged(folder: RunFolder) -> Report:
    report = steps.conclude(folder)
    steps.write_reports(report, folder.path)
    return report


def pictures(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "runs").glob("*/image-0.png")}


def test_rows_that_pass_keep_small_pictures_and_the_report_stays(bench: Any, tmp_path: Path) -> None:
    folder, kept = bench.drawn(golden="off"), tmp_path / "kept"
    report = judged(folder)
    assert pack.pack(folder.path, kept, PX) == (0, len(report.runs))
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
    pack.pack(folder.path, kept, PX)
    pack.pack(kept, again, PX // 2)
    whole, small, smaller = (shown(path) for path in (folder.path, kept, again))
    assert whole
    assert small == [(reduced(caption), re.sub(r"\.(jpg|png)$", "-reduced.jpg", name)) for caption, name in whole]
    assert smaller == small
    assert 'class="small"' in pages(folder.path)  # few pixels, shown as such
    assert 'class="small"' not in pages(kept)
    assert all((again / name).is_file() for _, name in smaller)
    assert {longest_px(path) for path in again.rglob("*.jpg")} == {PX // 2}
    assert words(again) == words(folder.path) != []


def reduced(caption: str) -> str:
    return f"reduced; {caption}" if caption.startswith("amplified") else f"{caption}, reduced"


def longest_px(path: Path) -> int:
    with Image.open(path) as image:
        return max(image.size)


def pages(run: Path) -> str:
    """Pages of the rows, in the order of their names."""
    return "".join(path.read_text() for path in sorted((run / "rows").iterdir()))


def words(run: Path) -> list[str]:
    """What stands where there is no picture: that two are equal, or one and the same."""
    return re.findall(r'<p class="absent">([^<]*)</p>', pages(run))


def shown(run: Path) -> list[tuple[str, str]]:
    """Caption and file of every picture on the rows' pages, in order."""
    return re.findall(
        r"<figcaption><b>[^<]*</b> <small>([^<]*)</small></figcaption>\s*<a href=\"../([^\"]*)\">", pages(run)
    )


def test_a_row_that_fails_keeps_all_its_runs(bench: Any, tmp_path: Path, repaint: Any) -> None:
    def only_one(spec: Any, drawing: Any) -> None:
        if spec.world_size > 1 and spec.case.name == "144x144" and spec.plan.axis == "w":
            repaint("candidate")(spec, drawing)

    folder = bench.drawn(golden="off", edit=only_one)
    report = judged(folder)
    (bad,) = [row for row in report.rows if row.verdict and row.verdict.outcome == "fail"]
    pack.pack(folder.path, tmp_path / "kept", PX)
    assert pictures(tmp_path / "kept") == set(bad.runs.values())
    names = {path.name for path in (tmp_path / "kept" / "diffs").glob("*.jpg")}
    whole = {path.name for path in (folder.path / "diffs").glob("*.jpg")}
    assert names & whole == {name for name in whole if set(name.split("-")[:2]) <= set(bad.runs.values())} != set()
    assert all(name.endswith("-reduced.jpg") for name in names - whole)


def test_a_case_without_a_golden_can_be_approved_from_what_was_kept(bench: Any, tmp_path: Path) -> None:
    """The machine that drew it may be gone by the time a person looks."""
    folder = bench.drawn()
    judged(folder)
    pack.pack(folder.path, tmp_path / "kept", PX)
    approve(tmp_path / "kept", [], yes=True, by="a person")
    assert steps.conclude(bench.drawn()).exit_code == 0


def test_a_case_that_passes_is_left_out_when_a_packed_run_is_approved(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.approved(bench.matrix_file().read_text().replace('["128x128", "144x144"]', '"144x144"'))
    folder = bench.drawn()
    judged(folder)
    pack.pack(folder.path, tmp_path / "kept", PX)
    approve(tmp_path / "kept", [], yes=True, by="a person")
    said = capsys.readouterr().out
    assert "128x128: new" in said
    assert "left out, their pictures are in the run folder that was packed: 144x144" in said
    assert steps.conclude(bench.drawn()).exit_code == 0
    with pytest.raises(UsageError, match=r"holds no picture of case '144x144'.* approve it from the run folder"):
        approve(tmp_path / "kept", ["144x144"], yes=True, by="a person")


def test_what_needs_every_picture_says_where_they_are(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    judged(folder)
    kept = tmp_path / "kept"
    pack.pack(folder.path, kept, PX)
    for use in (compare, resumed, lambda path: merge([path], tmp_path / "merged")):
        with pytest.raises(FileError, match=r"image-0\.png: is missing; .* use the run folder that was packed"):
            use(kept)
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_packed(bench: Any, tmp_path: Path) -> None:
    folder = bench.drawn(golden="off")
    with pytest.raises(FileError, match="holds no report"):
        pack.pack(folder.path, tmp_path / "kept", PX)
    judged(folder)
    with pytest.raises(UsageError, match="exists already"):
        pack.pack(folder.path, tmp_path, PX)
    assert tmp_path.is_dir()


def test_approved_pictures_are_kept_where_the_goldens_are_not_at_hand(bench: Any, tmp_path: Path) -> None:
    bench.approved()
    folder, kept, again = bench.drawn(), tmp_path / "kept", tmp_path / "again"
    judged(folder)
    bench.store.rename(tmp_path / "away")
    pack.pack(folder.path, kept, PX)
    pack.pack(kept, again, PX)
    approved = [name for caption, name in shown(folder.path) if caption.startswith("approved")]
    assert approved
    small = [name.replace(".png", "-reduced.jpg") for name in approved]
    for place in (kept, again):
        assert [name for caption, name in shown(place) if caption.startswith("approved")] == small
        assert {path.name for path in (place / "golden").iterdir()} == {Path(name).name for name in small}
        assert {longest_px(place / name) for name in small} == {PX}


def test_goldens_are_kept_whole_beside_a_row_that_fails(bench: Any, tmp_path: Path, repaint: Any) -> None:
    bench.approved()
    folder, kept = bench.drawn(edit=repaint("candidate")), tmp_path / "kept"
    judged(folder)
    pack.pack(folder.path, kept, PX)
    names = {path.name: path.read_bytes() for path in (folder.path / "golden").iterdir()}
    assert {path.name: path.read_bytes() for path in (kept / "golden").iterdir()} == names != {}


@pytest.mark.parametrize("index", [None, "{", '{"differences": {}}'])
def test_of_a_run_without_an_index_differences_are_drawn_first(bench: Any, tmp_path: Path, index: str | None) -> None:
    folder, kept = bench.drawn(golden="off"), tmp_path / "kept"
    judged(folder)
    file = folder.path / "diffs" / "index.json"
    file.unlink() if index is None else file.write_text(index)
    pack.pack(folder.path, kept, PX)
    assert words(kept) == words(folder.path)
    assert len(shown(kept)) == len(shown(folder.path))


def test_a_damaged_picture_is_named_and_a_damaged_difference_left_out(bench: Any, tmp_path: Path) -> None:
    folder, kept = bench.drawn(golden="off"), tmp_path / "kept"
    judged(folder)
    picture, difference = next((folder.path / "runs").glob("*/*.png")), next((folder.path / "diffs").glob("*.jpg"))
    whole = picture.read_bytes()
    for damaged in (picture, difference):
        damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(FileError, match=rf"{picture.name}: holds 100 bytes, .* sp-harness run --resume"):
        pack.pack(folder.path, kept, PX)
    picture.write_bytes(whole)
    pack.pack(folder.path, kept, PX)
    names = {path.name for path in (folder.path / "diffs").glob("*.jpg")} - {difference.name}
    assert {path.name for path in (kept / "diffs").glob("*.jpg")} == {n.replace(".jpg", "-reduced.jpg") for n in names}


def test_what_could_not_be_packed_leaves_nothing(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = bench.drawn(golden="off"), tmp_path / "kept"
    judged(folder)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DifferenceIndex, "write", full)
    with pytest.raises(InfrastructureError, match=r"kept: cannot be written \(No space left on device\)"):
        pack.pack(folder.path, kept, PX)
    assert not kept.exists()


def test_every_picture_of_a_batch_is_kept(bench: Any, tmp_path: Path) -> None:
    text = bench.matrix_file().read_text().replace('["128x128", "144x144"]', '"144x144"')
    folder, kept = bench.drawn(text + BATCH, golden="off"), tmp_path / "kept"
    judged(folder)
    pack.pack(folder.path, kept, PX)
    batches = [run.spec.digest for run in folder.runs().values() if len(run.images) == 2]
    assert batches
    for digest in batches:
        names = {path.name for path in (kept / "runs" / digest).glob("*.jpg")}
        assert names == {"image-0-reduced.jpg", "image-1-reduced.jpg"}
