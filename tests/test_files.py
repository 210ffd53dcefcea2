"""Atomic writes of files and folders, and the errors of those that fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.files import replacing, write_bytes, write_text, writing
from tests.disk import little_room


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.md"
    for text in ("old\r\n", "a lone surrogate: \ud800\n"):
        assert write_text(path, text) == path
    assert path.read_bytes() == b"a lone surrogate: ?\n"
    assert names(path.parent) == ["page.md"]
    path.chmod(0o600)
    write_bytes(path, b"", mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_text(tmp_path / "page.md", "old")
    with little_room(), pytest.raises(OSError, match="File too large") as error:
        write_text(path, "new " * 100)
    assert error.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["page.md"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "golden"
    for name in ("first", "second"):
        with replacing(folder) as building:
            (building / name).touch()
            assert folder.exists() == (name == "second")
        assert names(folder) == [name]
    assert names(folder.parent) == ["golden"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_folder_stays_when_filling_its_successor_fails(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "golden"
    folder.mkdir()
    (folder / "old").touch()

    def fill() -> None:
        with replacing(folder) as building:
            (building / "new").touch()
            raise error

    with pytest.raises(type(error)):
        fill()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["golden"]


def test_what_a_crash_left_is_not_part_of_the_next_folder(tmp_path: Path) -> None:
    left = tmp_path / ".golden.building"
    left.mkdir()
    (left / "half").touch()
    with replacing(tmp_path / "golden") as building:
        assert building == left
    assert names(tmp_path / "golden") == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths in the order in which they are flushed to disk, and renamed: ``-> NAME``."""
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_sync(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        happened.append(f"-> {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    return happened


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it names descriptors in /proc")
def test_a_folder_is_on_disk_before_it_appears_and_its_entry_after(tmp_path: Path, synced: list[str]) -> None:
    with replacing(tmp_path / "runs" / "run") as building:
        (building / "image.png").write_bytes(b"picture")
    assert synced == ["image.png", ".run.building", "-> run", "runs", tmp_path.name]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it names descriptors in /proc")
def test_so_is_a_file_that_has_to_last_and_no_other(tmp_path: Path, synced: list[str]) -> None:
    write_text(tmp_path / "page.html", "made again at any time")
    assert synced == ["-> page.html"]
    synced.clear()
    write_text(tmp_path / "plan.json", "{}", durable=True)
    assert [name.partition(".plan.json.")[0] or "plan.json" for name in synced] == [
        "plan.json", "-> plan.json", tmp_path.name, tmp_path.parent.name
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [UsageError, InfrastructureError])
def test_a_system_error_becomes_one_line_with_a_remedy(tmp_path: Path, kind: type[HarnessError]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(kind) as error, writing(tmp_path, "name another folder", kind):
        write_text(tmp_path / "file" / "page.md", "")
    assert str(error.value) == f"{tmp_path}: cannot be written (File exists); name another folder"
