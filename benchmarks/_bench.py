"""One matrix and one recorded run of it, from which every breakdown starts anew, and what all of them ask for."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from _checks import Checks
from _outside import Command
from _recorded import end_of, limit_time, only_run, outcomes, run_of, split_runs

from harness.runs.folder import RunFolder
from harness.types import Failure, FailureKind

MATRIX = Path(__file__).with_name("breakdowns.toml")
RECORD_GRACE_S = 10.0
"""Beyond the time limit: stacks are asked for, and the group is killed."""
ALL_WELL = {"first": "pass", "before": "pass", "struck": "pass", "after": "pass", "last": "pass"}


class Bench:
    """A folder with the matrix, and one recorded run from which every breakdown starts anew.

    Parameters
    ----------
    root
        Folder for all that is drawn.
    arguments
        Of the command line: ``model``, ``device`` and ``dtype`` take the place of the matrix'.
    matrix
        File to draw.
    """

    def __init__(self, root: Path, arguments: argparse.Namespace, matrix: Path = MATRIX) -> None:
        self.root = root
        self.arguments = arguments
        self.device: str = arguments.device
        self.hang_s: float = arguments.hang_s
        self._text = matrix.read_text(encoding="utf-8")
        for key in ("model", "device", "dtype"):
            self._text = re.sub(rf"^{key} = .*$", f'{key} = "{getattr(arguments, key)}"', self._text, flags=re.M)
        self._text = self._text.replace("768x768", arguments.struck_size)
        if arguments.model == "fake":
            self._text = self._text.replace('"spatial"', '"fake"') + "options = { step_s = 0.1 }\n"
        self.split = arguments.model != "fake"
        self.template: RunFolder | None = None
        """None where nothing whole was recorded."""

    def start(self, name: str, out: str = "reports") -> Command:
        """Run the whole matrix."""
        matrix = self.root / "breakdowns.toml"
        matrix.write_text(self._text, encoding="utf-8")
        return Command(matrix, "--out", self.root / out, "--no-explain", log=self.root / f"{name}.txt")

    def record(self) -> None:
        """Draw what the breakdowns start from.

        Raises
        ------
        RuntimeError
            If that does not end well.
        """
        out = self.root / "template"
        shutil.rmtree(out, ignore_errors=True)  # of a recording that failed
        run = self.start("template", out.name)
        try:
            if code := run.wait():
                raise RuntimeError(f"the run to start from ended with {code}; it printed:\n{run.printed()}")
        finally:
            run.end()
        self.template = only_run(out)

    def resume(self, folder: RunFolder, name: str) -> Command:
        """Draw what a run folder lacks."""
        return Command("--resume", folder.path, "--no-explain", log=self.root / f"{name}.txt")

    def half_done(self, name: str, timeout_s: float | None = None) -> RunFolder:
        """A copy of the recorded run in which nothing on two ranks is drawn yet."""
        if self.template is None:
            self.record()
        assert self.template is not None
        path = self.root / "reports" / name
        shutil.copytree(self.template.path, path)
        for spec in split_runs(self.template):
            shutil.rmtree(path / "runs" / spec.digest)
        (path / "report.json").unlink()
        (path / "journal.jsonl").unlink()
        if timeout_s is not None:
            plan = json.loads((path / "plan.json").read_text(encoding="utf-8"))
            limit_time(plan, "struck", timeout_s)
            (path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        return RunFolder.open(path)


def recorded(
    checks: Checks,
    folder: RunFolder,
    struck_at: float,
    kind: FailureKind,
    rank: int,
    message: str,
    detail: str,
    limit_s: float,
) -> None:
    """Ask for one failure, recorded in time."""
    run = run_of(folder, "struck")
    failure = run.failure or Failure(FailureKind.RAISED, "no failure at all")
    checks.holds("recorded", (kind.value, rank), (failure.kind.value, failure.rank))
    checks.holds("message", "as it should be", "as it should be" if re.match(message, failure.message) else message)
    checks.done("in full", failure.message)
    if detail:
        found = re.search(detail, failure.detail, re.I)
        checks.holds("detail shows", detail, detail if found else failure.detail[-1500:])
        checks.done("such as", found[0] if found else "")
    entry = end_of(folder, "struck")
    assert entry is not None
    seconds = entry["time"] - struck_at
    checks.at_most("seconds from fault to record", limit_s + RECORD_GRACE_S, seconds, "s")


def judged(checks: Checks, run: Command, folder: RunFolder, outcome: str, exit_code: int) -> None:
    """Ask for one verdict that says so, for all others to be well, and for nothing left running."""
    checks.holds("exit code", exit_code, run.wait())
    checks.holds("rows", {**ALL_WELL, "struck": outcome}, outcomes(folder))
    checks.holds("processes left", 0, run.left())


def resumes(bench: Bench, checks: Checks, folder: RunFolder) -> None:
    """Ask for a resumed run to end well."""
    run = bench.resume(folder, f"{folder.path.name}-resumed")
    try:
        checks.holds("exit code of --resume", 0, run.wait())
        checks.holds("rows after --resume", ALL_WELL, outcomes(folder))
        checks.holds("processes left after it", 0, run.left())
    finally:
        run.end()
