"""``run --bisect``: exit codes, and a bisection of an engine's checkout from start to end."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import _bisect, app
from harness.environments import child_process
from harness.types import Case, Outcome, Row, Size, Variant, Verdict

MATRIX = """
schema = 1
model = "fake"
steps = 1
golden = "off"
golden_store = "golden"

[[case]]
size = "128x128"
prompt = "a red ball"

[[variant]]
engine = "theirs"
ulysses = 2
axis = "h"
"""
ENGINE = """
from harness.engines.fake import FakeEngine
from theirs.kernels import shift

class Theirs(FakeEngine):
    name = "theirs"
    baseline = "fake"

    def draw(self, spec):
        drawing = super().draw(spec)
        if drawing is not None and spec.world_size > 1:
            drawing.latents = drawing.latents + shift
        return drawing
"""
KERNELS = ("0", "0  # 1", "0  # 2", "", "0  # 4", "1", "1  # 6")
"""Shift, commit by commit: the fourth cannot be imported, the sixth brings the bug."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with an engine, installed in place."""
    root, site = tmp_path / "checkout", tmp_path / "site"
    info = site / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sp_harness.engines]\ntheirs = theirs.engine:Theirs\n")
    (info / "direct_url.json").write_text(json.dumps({"url": root.as_uri(), "dir_info": {"editable": True}}))
    (root / "theirs").mkdir(parents=True)
    (root / "theirs" / "engine.py").write_text(ENGINE)
    git(root, "init", "-q")
    for number, text in enumerate(KERNELS):
        (root / "theirs" / "kernels.py").write_text(f"shift = {text}\n")
        git(root, "add", ".")
        git(root, "commit", "-qm", f"commit {number}")
    return root


def git(root: Path, *arguments: str, **environment: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *author, *arguments],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_git_finds_the_commit_that_broke_the_split_past_one_that_cannot_be_tested(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(MATRIX)
    command = [*child_process.command("harness.cli"), "run", str(tmp_path / "own.toml"), "--out", str(tmp_path / "r")]
    command += ["--bisect", "128x128/theirs-u2-h"]
    git(checkout, "bisect", "start", "HEAD", "HEAD~6")
    path = os.pathsep.join([child_process.HERE, str(tmp_path / "site"), str(checkout)])
    git(checkout, "bisect", "run", "sh", "-c", shlex.join(command), PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    *log, found = git(checkout, "bisect", "log").splitlines()
    assert found.startswith("# first bad commit: ")
    assert found.endswith("commit 5")
    assert [line.rpartition("] ")[2] for line in log if line.startswith("# skip: ")] == ["commit 3"]
    assert "commit 4" in {line.rpartition("] ")[2] for line in log if line.startswith("# good: ")}


@pytest.mark.parametrize(
    ("outcome", "infrastructure", "code", "with_errors"),
    [
        (Outcome.PASS, False, 0, 0),
        (Outcome.FAIL, False, 1, 1),
        (Outcome.ERROR, False, 125, 1),
        (Outcome.TIMEOUT, False, 125, 1),
        (Outcome.ERROR, True, 125, 125),
        (Outcome.SKIP, False, 125, 125),
        (Outcome.NO_GOLDEN, False, 125, 125),
    ],
)
def test_only_a_failure_is_bad(outcome: Outcome, infrastructure: bool, code: int, with_errors: int) -> None:
    case = Case("128x128", "fake", Size(128, 128), ("x",))
    row = Row(case, Variant("fake"), verdict=Verdict(outcome, "", infrastructure=infrastructure))
    assert _bisect.exit_code(row, bad_error=False) == code
    assert _bisect.exit_code(row, bad_error=True) == with_errors


@pytest.mark.parametrize(
    ("raised", "code"),
    [(SystemExit(2), 125), (SystemExit(1), 1), (SystemExit(0), 0), (KeyboardInterrupt(), 130), (SystemExit(70), 125)],
    ids=repr,
)
def test_what_cannot_be_tested_is_neither_good_nor_bad(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["sp-harness", "run", "own.toml", "--bisect=128x128/theirs-u2-h"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == code


def test_a_row_that_is_not_there_is_answered_with_the_closest(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(MATRIX.replace('"theirs"', '"fake"'))
    command = [
        *child_process.command("harness.cli"),
        "run",
        str(tmp_path / "own.toml"),
        "--bisect",
        "128x128/fake-u2-w",
    ]
    done = subprocess.run(
        command, env=child_process.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 125
    assert "there is no row '128x128/fake-u2-w'; did you mean '128x128/fake-u2-h'?" in done.stderr
