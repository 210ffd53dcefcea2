"""Runs that are cut short: what is there is reported, what is missing can be resumed, nothing is left running."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from harness import codec
from harness.runs.folder import Plan
from harness.types import Report
from tests import command_line
from tests.command_line import OFF, VARIANT, Cli, Write, is_rank

HEAD = command_line.HEAD + OFF


def slow(step_s: float) -> str:
    return VARIANT + f"options = {{ step_s = {step_s} }}\n"


class Command(Protocol):
    process: Any

    @property
    def output(self) -> str: ...
    def until(self, condition: Callable[[], object]) -> None: ...
    def ranks(self) -> list[psutil.Process]: ...
    def wait(self) -> int: ...


Start = Callable[..., Command]


def case(name: str, **fields: object) -> str:
    extra = "".join(f"{key} = {value}\n" for key, value in fields.items())
    return f'[[case]]\nname = "{name}"\nsize = "128x128"\nprompt = "{name}"\n{extra}'


THREE = case("first") + case("second", steps=40) + case("third")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run_of(out: Path) -> Path | None:
    return next(iter(out.iterdir()), None) if out.is_dir() else None


def recorded(run: Path) -> dict[str, tuple[int, str]]:
    """When each finished run was written, by the file system and by its own account."""
    return {
        path.parent.name: (path.stat().st_mtime_ns, json.loads(path.read_text())["started_at"])
        for path in run.glob("runs/*/run.json")
    }


def in_the_split_run_of(out: Path, name: str) -> Callable[[], bool]:
    """Whether the two ranks are drawing a case this very moment."""

    def reached() -> bool:
        run = run_of(out)
        if run is None or not (run / "plan.json").is_file():
            return False
        specs = json.loads((run / "plan.json").read_text())["specs"]
        wanted = [d for d, spec in specs.items() if spec["ulysses"] == 2 and spec["case"]["name"] == name]
        return any((run / "runs" / f".{digest}.building").is_dir() for digest in wanted)

    return reached


def outcomes(run: Path) -> dict[str, str | None]:
    report = codec.read_json(run / "report.json", Report)
    return {row.case.name: row.verdict.outcome.value if row.verdict else None for row in report.rows}


def test_a_polite_request_to_end_is_taken_as_ctrl_c(start: Start, write: Write, out: Path) -> None:
    interrupted_run(start, write, out, signal.SIGTERM)


def interrupted_run(start: Start, write: Write, out: Path, number: signal.Signals) -> Path:
    """Interrupt the second of three cases in the middle, and look at what is left."""
    command = start("run", write(HEAD + THREE + slow(0.05)), "--out", out)
    command.until(in_the_split_run_of(out, "second"))
    command.until(lambda: len(command.ranks()) == 2)
    ranks = command.ranks()
    command.process.send_signal(number)
    assert command.wait() == 130, command.output
    assert not any(map(is_rank, ranks))
    assert "Traceback" not in command.output
    run = run_of(out)
    assert run is not None
    assert f"interrupted; finish it with: sp-harness run --resume {run}" in command.output
    assert command.output.splitlines()[-1] == f"report: {run / 'index.html'}"

    report = codec.read_json(run / "report.json", Report)
    assert (report.complete, report.exit_code) == (False, 130)
    assert outcomes(run) == {"first": "pass", "second": "skip", "third": "skip"}
    assert "not run: the candidate was not reached" in (run / "report.json").read_text()
    assert {path.name for path in run.iterdir()} >= {"junit.xml", "summary.md", "results.csv", "index.html"}
    assert not [path for path in (run / "runs").iterdir() if path.name.startswith(".")]

    # three baselines and their reorderings, one repeat, three controls, one candidate
    assert len(recorded(run)) == 11
    return run


def test_resume_finishes_an_interrupted_run_and_computes_nothing_twice(
    cli: Cli, start: Start, write: Write, out: Path
) -> None:
    run = interrupted_run(start, write, out, signal.SIGINT)
    before = recorded(run)
    resumed = cli("run", "--resume", run)
    assert resumed.code == 0, resumed.out + resumed.err
    assert outcomes(run) == {"first": "pass", "second": "pass", "third": "pass"}
    after = recorded(run)
    assert len(after) == 13
    assert {digest: after[digest] for digest in before} == before
    assert re.findall(r"^\[(\d+)/13\]", resumed.out, re.MULTILINE) == ["12", "13"]

    again = cli("run", "--resume", run)
    assert again.code == 0, again.out + again.err
    assert recorded(run) == after


def test_a_rank_killed_mid_run_costs_its_case_and_no_other(cli: Cli, start: Start, write: Write, out: Path) -> None:
    command = start("run", write(HEAD + THREE + slow(0.05)), "--out", out)
    command.until(in_the_split_run_of(out, "second"))
    command.until(lambda: len(command.ranks()) == 2)
    ranks = command.ranks()
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert command.wait() == 3, command.output
    run = run_of(out)
    assert run is not None
    assert outcomes(run) == {"first": "pass", "second": "error", "third": "pass"}
    assert "rank 1 was killed from outside (SIGKILL)" in command.output
    assert "Traceback" not in command.output
    (row,) = [row for row in codec.read_json(run / "report.json", Report).rows if row.case.name == "second"]
    assert row.verdict is not None
    assert (row.verdict.infrastructure, row.verdict.cause) == (True, "environment")
    assert not any(map(is_rank, ranks))

    # What the machine is to blame for is computed again; what was drawn is not.
    before = recorded(run)
    resumed = cli("run", "--resume", run)
    assert resumed.code == 0, resumed.out + resumed.err
    after = recorded(run)
    assert set(after) == set(before)
    changed = {digest for digest in after if after[digest] != before[digest]}
    assert changed == {row.runs["candidate"]}


def test_a_rank_that_raises_is_a_verdict_and_stays_one(cli: Cli, write: Write, out: Path) -> None:
    matrix = write(HEAD + case("first") + case("second") + VARIANT + VARIANT + 'fault = "crash"\ncases = ["second"]\n')
    done = cli("run", matrix, "--out", out)
    assert done.code == 1, done.out + done.err
    run = run_of(out)
    assert run is not None
    assert "rank 1 raised RuntimeError: the fake engine was told to crash" in done.out
    report = codec.read_json(run / "report.json", Report)
    verdicts = {row.name: row.verdict for row in report.rows if row.verdict}
    assert [verdict.outcome.value for verdict in verdicts.values()] == ["pass", "pass", "error"]
    before = recorded(run)
    assert cli("run", "--resume", run).code == 1
    assert recorded(run) == before  # a failure of the engine is never retried


def test_ranks_do_not_outlive_a_parent_that_is_killed(start: Start, write: Write, out: Path) -> None:
    command = start("run", write(HEAD + case("only", steps=1000) + slow(0.1)), "--out", out, "--axis", "h")
    command.until(lambda: command.ranks())
    ranks = command.ranks()
    command.process.kill()
    command.process.wait()
    _, alive = psutil.wait_procs([rank for rank in ranks if is_rank(rank)], timeout=30)
    assert not any(map(is_rank, alive))


def test_ranks_of_a_split_run_do_not_outlive_it_either(start: Start, write: Write, out: Path) -> None:
    command = start("run", write(HEAD + case("only", steps=20) + slow(0.1)), "--out", out)
    command.until(in_the_split_run_of(out, "only"))
    command.until(lambda: len(command.ranks()) == 2)
    ranks = command.ranks()
    command.process.kill()
    command.process.wait()
    psutil.wait_procs([rank for rank in ranks if is_rank(rank)], timeout=30)
    assert not any(map(is_rank, ranks))


def test_a_rank_that_is_stopped_does_not_outlive_it_either(start: Start, write: Write, out: Path) -> None:
    """It cannot see that its parent is gone, and would hold its memory for ever."""
    command = start("run", write(HEAD + case("only", steps=40) + slow(0.1)), "--out", out)
    command.until(in_the_split_run_of(out, "only"))
    command.until(lambda: len(command.ranks()) == 2)
    ranks = command.ranks()
    ranks[1].suspend()
    command.process.kill()
    command.process.wait()
    psutil.wait_procs([rank for rank in ranks if is_rank(rank)], timeout=30)
    assert not any(map(is_rank, ranks))


def test_runs_of_other_code_are_computed_anew(cli: Cli, bench: Any) -> None:
    run = bench.drawn(HEAD + case("only") + VARIANT, "off").path
    # As if everything had been recorded by another version: every file speaks of other digests.
    text = (run / "plan.json").read_text()
    specs = codec.read_json(run / "plan.json", Plan).specs
    for digest, spec in specs.items():
        old = replace(spec, source="another")
        description = run / "runs" / digest / "run.json"
        recorded_run = json.loads(description.read_text()) | {"spec": codec.encode(old)}
        description.write_text(json.dumps(recorded_run))
        (run / "runs" / digest).rename(run / "runs" / old.digest)
        text = text.replace(digest, old.digest)
    plan = json.loads(text)
    for spec in plan["specs"].values():
        spec["source"] = "another"
    (run / "plan.json").write_text(json.dumps(plan))

    judged = cli("compare", run)
    assert judged.code == 0, judged.out + judged.err  # whole in itself: it may be judged as it is
    resumed = cli("run", "--resume", run)
    assert resumed.code == 0, resumed.out + resumed.err
    assert "[5/5]" in resumed.out
    report = codec.read_json(run / "report.json", Report)
    assert {found.spec.source for found in report.runs.values()} != {"another"}
    assert set(report.runs) == set(specs)


@pytest.mark.skipif(sys.platform != "linux", reason="the state of a process is read from /proc")
def test_time_in_which_the_run_was_suspended_does_not_count(start: Start, write: Write, out: Path) -> None:
    """As by Ctrl-Z and `fg`, which the ranks do not notice, and by a batch system, which stops them too."""
    cases = case("parent", steps=10, timeout_s=4) + case("all", steps=10, timeout_s=4)
    command = start("run", write(HEAD + cases + slow(0.05)), "--out", out)
    for name in ("parent", "all"):
        command.until(in_the_split_run_of(out, name))
        ranks = command.ranks() if name == "all" else []
        stopped = [psutil.Process(command.process.pid), *ranks]
        for process in stopped:
            process.suspend()
        time.sleep(4.5)  # longer than the limit
        for process in stopped:
            process.resume()
    assert command.wait() == 0, command.output
    run = run_of(out)
    assert run is not None
    assert outcomes(run) == {"parent": "pass", "all": "pass"}
