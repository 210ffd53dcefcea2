"""The nightly workflow and its one script, which speaks to GitHub through ``gh``."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".github" / "nightly-issue.sh"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

GH = """\
#!/usr/bin/env bash
# Stands for gh: notes each call, with the text it was given, and answers which issue is open.
if [ "$1 $2" = "issue list" ]; then cat "$STATE"; fi
printf '%s\\n' "$*" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cat "$2" >> "$TEXT"; shift; done
exit 0
"""


class GitHub:
    """A repository with at most one open issue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "gh").write_text(GH)
        (folder / "gh").chmod(0o755)

    def nightly(self, *arguments: str, open_issue: str = "") -> list[str]:
        files = {name: self.folder / name for name in ("STATE", "CALLS", "TEXT")}
        for path in files.values():
            path.write_text("")
        files["STATE"].write_text(open_issue)
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", **{n: str(p) for n, p in files.items()}}
        done = subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
        self.code, self.err, self.text = done.returncode, done.stderr, files["TEXT"].read_text()
        return [call for call in files["CALLS"].read_text().splitlines() if not call.startswith("issue list")]


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    return GitHub(tmp_path)


@pytest.fixture
def issue(tmp_path: Path) -> str:
    path = tmp_path / "issue.md"
    path.write_text('nightly: it "broke" at `720x720` $HOME\n\nwhy\n\nRows: many\n')
    return str(path)


class TestOneIssue:
    def test_the_first_red_run_opens_it(self, github: GitHub, issue: str) -> None:
        label, create = github.nightly("red", issue)
        assert label.startswith("label create nightly-gpu ")
        assert create.startswith('issue create --title nightly: it "broke" at `720x720` $HOME --label nightly-gpu ')
        assert github.text == "why\n\nRows: many\n"

    def test_the_next_red_run_updates_it(self, github: GitHub, issue: str) -> None:
        edit, comment = github.nightly("red", issue, open_issue="7\n")
        assert edit.startswith("issue edit 7 --title nightly: it ")
        assert comment.startswith("issue comment 7 ")
        assert github.text == "why\n\nRows: many\n"

    def test_a_green_run_closes_it(self, github: GitHub) -> None:
        assert github.nightly("green", "https://x/1", open_issue="7\n") == [
            "issue close 7 --comment Green again: https://x/1"
        ]

    def test_a_green_run_after_a_green_one_is_silent(self, github: GitHub) -> None:
        assert github.nightly("green", "https://x/1") == []
        assert github.code == 0

    def test_anything_else_is_refused(self, github: GitHub) -> None:
        assert github.nightly("amber") == []
        assert github.code == 2
        assert "red or green, not 'amber'" in github.err


def test_a_run_that_takes_too_long_ends_its_step_and_not_its_job() -> None:
    """The job's own limit cancels: no report would be kept, and no issue written."""
    job = (ROOT / ".github" / "workflows" / "nightly-gpu.yml").read_text(encoding="utf-8").partition("\n  nightly:")[2]
    whole = int(re.findall(r"\n    timeout-minutes: (\d+)", job)[0])
    step = job.partition("- name: run the matrix\n")[2].partition("      - ")[0]
    (limit,) = re.findall(r"\n        timeout-minutes: (\d+)", step)
    assert int(limit) <= whole - 20  # what comes after it is packing, pages and an upload


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
class TestEveryWorkflow:
    def test_runs_only_commands_that_exist(self, path: Path) -> None:
        from typer.main import get_command

        from harness.cli.app import app

        known = set(get_command(app).commands)
        used = set(re.findall(r"\bsp-harness (\w+)", path.read_text(encoding="utf-8")))
        assert used <= known, used - known

    def test_may_write_nothing_unless_a_job_says_so(self, path: Path) -> None:
        top = path.read_text(encoding="utf-8").partition("\njobs:")[0]
        assert "\npermissions:\n  contents: read\n" in top
        assert "write" not in top.partition("\npermissions:")[2]

    def test_every_action_is_pinned(self, path: Path) -> None:
        for action in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"actions/[\w/-]+@v\d+", action), action
