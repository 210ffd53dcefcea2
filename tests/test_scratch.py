"""Scratch folders: gone at the end, and after a process that was killed with the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.scratch import Scratch, scratch

PROGRAM = """
import sys, time
from pathlib import Path
from harness.scratch import Scratch
made = Scratch("run-", Path(sys.argv[1]))
(made.path / "half").write_text("half")
print(made.path, flush=True)
time.sleep(600)
"""


def test_a_folder_lasts_as_long_as_its_context(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch("run-", tmp_path) as folder:
            assert folder.parent == tmp_path
            (folder / "half").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_process_that_was_killed_is_removed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "run-by-hand").mkdir()
    (tmp_path / "run-file").touch()
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        first = Scratch("run-", tmp_path)
        assert left.is_dir()  # of a process that lives
        process.kill()
    second = Scratch("run-", tmp_path)
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run-by-hand", "run-file", first.path.name, second.path.name}
    first.remove()
    second.remove()
