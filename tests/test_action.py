"""The action for other repositories: its steps, run as scripts in a repository that is made up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import CASE, HEAD, OFF, VARIANT

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
BESIDE = ROOT / ".github" / "actions" / "comment"
RUN, POST = ROOT / ".github" / "gate" / "run.sh", BESIDE / "post.sh"
COMMENT = yaml.safe_load((BESIDE / "action.yml").read_text(encoding="utf-8"))


class Repository:
    """A repository of somebody else's, and a runner's files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temp = folder, folder / "temp"
        self.outputs, self.page = folder / "outputs", folder / "page.md"
        (folder / "bin").mkdir()
        self.temp.mkdir()
        command = folder / "bin" / "sp-harness"
        command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m harness.cli "$@"\n')
        command.chmod(0o755)

    def run(self, matrix: str, arguments: str = "") -> dict[str, str]:
        env = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "MATRIX": matrix,
            "ARGUMENTS": arguments,
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.outputs),
            "GITHUB_STEP_SUMMARY": str(self.page),
        }
        done = subprocess.run([RUN], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr  # the verdict is the last step's: before it the report is uploaded
        return dict(line.split("=", 1) for line in self.outputs.read_text().splitlines())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_run_leaves_its_summary_at_a_fixed_path_and_its_exit_code(repository: Repository) -> None:
    faulty = VARIANT + 'fault = "swapped-ranks"\n'
    (repository.folder / "m.toml").write_text(HEAD + OFF + CASE + VARIANT + faulty)
    outputs = repository.run("m.toml", "--no-explain --case 128x128")
    assert outputs["exit-code"] == "1"
    assert (Path(outputs["run"]) / "report.json").is_file()
    summary = (repository.temp / "sp-harness" / "summary.md").read_text()
    assert summary.startswith("## Splitting damages the picture")
    assert summary == (Path(outputs["run"]) / "summary.md").read_text() == repository.page.read_text()


def test_a_run_without_a_report_says_so(repository: Repository) -> None:
    outputs = repository.run("nowhere.toml")
    assert outputs["exit-code"] == "2"
    assert repository.page.read_text() == (
        "The run of `nowhere.toml` ended with exit code 2 and left no report; see the log.\n"
    )


def test_the_verdict_is_the_last_step_and_words_of_others_are_data() -> None:
    steps = ACTION["runs"]["steps"]
    assert steps[-1]["run"] == 'exit "$CODE"'
    assert "upload-artifact" in steps[-2]["uses"]
    for step in (*steps, *COMMENT["runs"]["steps"]):
        assert "${{" not in step.get("run", ""), "an input in a script could be a command"
        assert re.search(r"@v\d+$", step.get("uses", "@v1"))
    for script in (RUN, POST):
        assert os.access(script, os.X_OK)


GH = """\
#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *pulls*) echo "$PULL" ;;
  *"--paginate"*) echo "$KNOWN" ;;
  *body=@*) for word in "$@"; do case "$word" in body=@*) cat "${word#body=@}" > "$TEXT" ;; esac; done ;;
esac
"""


class TestComment:
    def post(self, folder: Path, pull: str = "7", known: str = "") -> tuple[list[str], str]:
        (folder / "gh").write_text(GH)
        (folder / "gh").chmod(0o755)
        summary = folder / "summary.md"
        summary.write_text("## All rows pass\n\n@everyone look\n")
        env: dict[str, Any] = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "GH_REPO": "owner/engine",
            "HEAD": "stranger:feature",
            "SHA": "abc",
            "LINK": "https://x/1",
            "PULL": pull,
            "KNOWN": known,
            **{name: str(folder / name) for name in ("CALLS", "TEXT")},
        }
        subprocess.run([POST, summary], env=env, check=True, capture_output=True, timeout=60)
        text = folder / "TEXT"
        return (folder / "CALLS").read_text().splitlines(), text.read_text() if text.exists() else ""

    def test_the_first_run_writes_one(self, tmp_path: Path) -> None:
        calls, text = self.post(tmp_path)
        assert "head=stranger:feature" in calls[0]
        assert '.head.sha == "abc"' in calls[0]
        assert calls[-1].startswith("api --method POST repos/owner/engine/issues/7/comments ")
        assert text.startswith("<!-- sp-harness -->\n## All rows pass\n")
        assert "@" not in text
        assert text.endswith("[Report](https://x/1)\n")

    def test_the_next_run_updates_it(self, tmp_path: Path) -> None:
        calls, _ = self.post(tmp_path, known="99")
        assert calls[-1].startswith("api --method PATCH repos/owner/engine/issues/comments/99 ")

    def test_what_is_no_longer_the_newest_commit_is_not_posted(self, tmp_path: Path) -> None:
        calls, text = self.post(tmp_path, pull="")
        assert (len(calls), text) == (1, "")
