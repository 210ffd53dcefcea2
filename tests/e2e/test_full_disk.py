"""A disk that is really full: a file system of less than a picture, or than its latents, and then a bigger one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.session import steps

Write = Callable[..., Path]

DEADLINE_S = 60.0

MATRIX = """\
schema = 1
name = "full"
model = "fake"
steps = {steps}
golden = "off"

[[case]]
size = "{size}"
prompt = "waves"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
"""
PROGRAM = """\
mount -t tmpfs -o size=$4 tmpfs "$1" || exit 77
"$2" -m harness.cli run "$3" --out "$1"; echo "ended with $?"
echo "left: $(ls -A "$1"/*/runs)"
mount -o remount,size=64m "$1" || exit 77
"$2" -m harness.cli run --resume "$1"/*; echo "ended with $?"
"""
FILLED = """\
mount -t tmpfs -o size=4m tmpfs "$1" || exit 77
cp -r "$3" "$1/run"
cat /dev/zero > "$1/zeros" 2> /dev/null
"$2" -m harness.cli compare "$1/run" 2>&1; echo "ended with $?"
"$2" -m harness.cli report "$1/run" 2>&1; echo "ended with $?"
"""


pytestmark = pytest.mark.skipif(not shutil.which("unshare"), reason="mounts are made in a namespace of their own")


def mounted(program: str, *arguments: object) -> str:
    """Run a shell program that may mount; what it prints."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", program, "sh", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S)
    if "ended with" not in done.stdout:
        pytest.skip(f"nothing can be mounted here: {done.stdout.strip()}")
    return done.stdout


@pytest.mark.parametrize(
    ("size", "steps", "room"),
    [
        pytest.param("2048x2048", 2, "160k", id="picture"),  # of 175 KiB
        pytest.param("128x128", 100, "300k", id="latents"),  # of 404 KiB; a picture has 1 KiB
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, write: Write, size: str, steps: int, room: str
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    printed = mounted(PROGRAM, place, sys.executable, write(MATRIX.format(size=size, steps=steps)), room)
    before, after = printed.split("left: \n")
    said, code = before.strip().splitlines()[-2:]
    assert said.startswith(f"sp-harness: {place}/full-")
    assert "a run cannot be written (No space left on device); mend that, then finish with: sp-harness run" in said
    assert said.split()[-2:-1] == ["--resume"]
    assert Path(said.split()[-1]).parent == place
    assert code == "ended with 3"
    assert "Traceback" not in printed
    assert "1 pass" in after
    assert after.rstrip().endswith("ended with 0")


def test_a_disk_without_room_for_a_report_is_named(tmp_path: Path, bench: Any) -> None:
    folder = bench.drawn(golden="off")
    steps.write_reports(steps.conclude(folder), folder.path)
    place = tmp_path / "out"
    place.mkdir()
    lines = mounted(FILLED, place, sys.executable, folder.path).splitlines()
    for said, code in (lines[:2], lines[2:]):
        assert said.startswith(f"sp-harness: {place}/run")
        assert said.endswith(": No space left on device; make room on that disk")
        assert code == "ended with 3"
