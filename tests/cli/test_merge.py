"""A matrix in shards, as CI runs it: each by itself, then one report of all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.types import Report
from tests.command_line import Cli, Write, invoke


def report_of(folder: Path) -> Report:
    return codec.read_json(folder / "report.json", Report)


@pytest.fixture(scope="module")
def shards(fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("shards")
    for index in (1, 2):
        done = invoke("run", fakes.matrix, "--out", out, "--shard", f"{index}/2")
        assert done.code == 0, done.err
        assert f"This is shard {index}/2 of the matrix" in done.out
    return sorted(out.iterdir())


def test_shards_are_merged_into_what_one_run_would_have_been(
    cli: Cli, fakes: Any, shards: list[Path], tmp_path: Path
) -> None:
    assert [folder.name.split("-")[1] for folder in shards] == ["1of2", "2of2"]
    done = cli("merge", *reversed(shards), "--out", tmp_path)
    assert done.code == 0, done.err
    assert "6 pass" in done.out
    (merged,) = tmp_path.iterdir()
    assert done.out.splitlines()[0] == f"merged into {merged}"
    rows = [[codec.encode(row) for row in report_of(folder).rows] for folder in (merged, fakes.run)]
    assert rows[0] == rows[1]
    assert (merged / "index.html").is_file()


def test_a_shard_alone_is_merged_as_what_is_missing_and_can_be_finished(
    cli: Cli, shards: list[Path], tmp_path: Path
) -> None:
    done = cli("merge", shards[0], "--out", tmp_path)
    assert done.code == 3
    assert "Shard 2/2 is missing: " in done.out
    assert "interrupted; " in done.out
    (half,) = tmp_path.iterdir()
    assert cli("run", "--resume", half).code == 0
    assert report_of(half).complete


def test_an_interrupted_shard_is_finished_as_that_shard(cli: Cli, shards: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shards[0], folder)
    before = {path.name for path in (folder / "runs").iterdir()}
    shutil.rmtree(folder / "runs" / min(before))
    done = cli("run", "--resume", folder)
    assert done.code == 0
    assert f"[{len(before)}/{len(before)}]" in done.out
    assert {path.name for path in (folder / "runs").iterdir()} == before


def test_a_shard_without_a_case_is_well_and_leaves_nothing(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("run", write(), "--out", tmp_path / "out", "--shard", "3/3")
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert "shard 3/3 of " in done.out
    assert "has no case" in done.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shard", "0/4"], "--shard '0/4': write I/N"),
        (["--shard", "5/4"], "--shard '5/4': write I/N"),
        (["--shard", "x/y"], "--shard 'x/y': write I/N"),
        (["--executor", "rya"], "--executor 'rya': did you mean 'ray'?"),
        (["--ray-address", "auto"], "add --executor ray"),
    ],
)
def test_what_cannot_be_meant_is_one_line(cli: Cli, write: Write, arguments: list[str], words: str) -> None:
    done = cli("run", write(), *arguments)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert words in done.err


def test_a_resumed_run_is_not_divided(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--resume", tmp_path, "--shard", "1/2")
    assert done.code == 2
    assert "--shard" in done.err


def test_merging_what_is_no_run_folder_is_one_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("merge", tmp_path, "--out", tmp_path / "merged")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "is no run folder" in done.err
    assert not (tmp_path / "merged").exists()
