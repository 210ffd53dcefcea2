"""Verification: goldens that are missing, altered, unused, or not what is pinned."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from harness.errors import InfrastructureError
from harness.goldens import golden
from harness.goldens.open_store import open_store, store_of
from harness.goldens.verify import empty_stores, verify
from harness.matrix.loader import read_matrix

from .remote import BOTH, Remote


class TestFolder:
    @pytest.fixture
    def goldens(self, bench: Any) -> dict[str, Path]:
        """Folders of goldens by the name of their case."""
        cases = bench.approved().matrix.cases
        return {case.name: golden.folder_of(bench.store, case, "cpu-float32") for case in cases}

    def verify(self, bench: Any, sizes: str = BOTH, is_all: bool = True) -> tuple[int, list[str]]:
        text = bench.matrix_file().read_text().replace(BOTH, sizes)
        return verify([read_matrix(bench.matrix_file(text))], is_all)

    def test_all_well(self, bench: Any, goldens: dict[str, Path]) -> None:
        assert self.verify(bench) == (2, [])

    def test_missing(self, bench: Any, goldens: dict[str, Path]) -> None:
        shutil.rmtree(goldens["128x128"])
        assert self.verify(bench) == (2, [f"missing: {goldens['128x128']}"])

    def test_an_empty_store_lacks_everything(self, bench: Any) -> None:
        count, lines = self.verify(bench)
        assert (count, [line.split(":")[0] for line in lines]) == (2, ["missing", "missing"])
        assert empty_stores([read_matrix(bench.matrix_file())]) == [str(bench.store)]

    def test_a_store_that_holds_something_is_not_empty(self, bench: Any, goldens: dict[str, Path]) -> None:
        assert empty_stores([read_matrix(bench.matrix_file())]) == []

    def test_unused_unless_another_matrix_may_need_it(self, bench: Any, goldens: dict[str, Path]) -> None:
        assert self.verify(bench, '"144x144"') == (1, [f"unused: {goldens['128x128']}"])
        assert self.verify(bench, '"144x144"', is_all=False) == (1, [])

    def test_several_matrices_are_taken_together(self, bench: Any, goldens: dict[str, Path]) -> None:
        one = bench.matrix_file().with_name("one.toml")
        one.write_text(bench.matrix_file().read_text().replace(BOTH, '"144x144"'))
        assert verify([read_matrix(one), read_matrix(bench.matrix_file())]) == (2, [])

    def test_a_file_that_belongs_to_no_golden(self, bench: Any, goldens: dict[str, Path]) -> None:
        notes = goldens["128x128"] / "notes.txt"
        notes.write_text("mine")
        assert self.verify(bench) == (2, [f"unused: {notes}"])

    @pytest.mark.parametrize(
        ("name", "problem"),
        [("image.png", "does not match its digest"), ("golden.json", "is no valid JSON")],
    )
    def test_altered(self, bench: Any, goldens: dict[str, Path], name: str, problem: str) -> None:
        (goldens["144x144"] / name).write_bytes(b"<<<<<<< ours")
        _, (line,) = self.verify(bench)
        assert line.startswith(f"altered: {goldens['144x144'] / name}: {problem}")

    def test_everything_at_once(self, bench: Any, goldens: dict[str, Path]) -> None:
        (goldens["128x128"] / "image.png").unlink()
        count, lines = self.verify(bench, '["128x128", "96x96"]')
        assert (count, [line.split(":")[0] for line in lines]) == (2, ["missing", "unused", "altered"])
        assert str(goldens["144x144"]) in lines[1]


class TestUrl:
    def verify(self, remote: Remote, pin: str | None, sizes: str = BOTH) -> tuple[int, list[str]]:
        open_store.cache_clear()
        return verify([read_matrix(remote.bench.matrix_file(remote.text(pin, sizes)))])

    def test_all_well(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        assert self.verify(remote, pin) == (2, [])

    def test_not_what_is_pinned(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        count, (line,) = self.verify(remote, "sha256:" + "0" * 64)
        assert count == 2
        assert line.startswith("pin: ")
        assert pin in line

    def test_missing(self, remote: Remote) -> None:
        """A case that is new to the matrix leaves the pin of the others in force."""
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        count, (missing,) = self.verify(remote, pin)
        assert count == 2
        assert missing.startswith(f"missing: {remote.url}/fake/cpu-float32/144x144-")

    def test_altered_also_where_a_good_copy_is_in_the_cache(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        remote.run(pin)
        path = next(path for name, path in remote.files().items() if name.endswith("image.png"))
        remote.fs.pipe_file(path, b"painted over")
        _, (line,) = self.verify(remote, pin)
        assert line.startswith(f"altered: {remote.url}/fake/cpu-float32/")
        assert "image.png: does not match" in line

    def test_needs_no_room_beyond_the_cache(
        self, remote: Remote, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The system's folder for temporary files is often another file system, and a small one."""
        pin = remote.approve(*remote.run())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        assert self.verify(remote, pin) == (2, [])
        assert not [path for path in cache.glob(".*") if path.is_dir()]

    def test_a_cache_that_cannot_be_written_is_one_line(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pin = remote.approve(*remote.run())
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "file"))
        with pytest.raises(InfrastructureError, match=r"file/goldens: cannot be written \(Not a directory\)"):
            self.verify(remote, pin)

    def test_what_others_keep_there_is_no_problem(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        remote.approve(*remote.run(sizes='"144x144"'))
        assert self.verify(remote, pin, '"128x128"') == (1, [])

    def test_of_a_gpu_what_is_there_is_verified_and_nothing_missed(self, remote: Remote) -> None:
        text = remote.text(sizes='"128x128"').replace("steps = 2", 'steps = 2\ndevice = "cuda"\ndtype = "bfloat16"')
        matrix = read_matrix(remote.bench.matrix_file(text))
        assert verify([matrix]) == (0, [])
        folder, _ = remote.run(sizes='"128x128"')
        proposal = next((folder.path / "proposals").rglob("golden.json")).parent
        (key,) = matrix.golden_keys
        address = f"fake/cuda-h200-bfloat16/{key.partition('/')[2]}"
        for file in proposal.iterdir():
            target = f"{fsspec.core.url_to_fs(remote.url)[1]}/{address}/{file.name}"
            remote.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            remote.fs.pipe_file(target, file.read_bytes() + (b"x" if file.name == "image.png" else b""))
        open_store.cache_clear()
        look = store_of(matrix).look(matrix.golden_keys)
        count, (line,) = verify([replace(matrix, golden_digest=look.digest)])
        assert count == 1
        assert line.startswith(f"altered: {remote.url}/{address}/image.png: does not match")
