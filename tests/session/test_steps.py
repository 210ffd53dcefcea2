"""The way from a matrix to a report, as far as it needs no worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness import codec
from harness.execution.events import Event, Holding, Started, Stepped, Waiting
from harness.session import steps
from harness.session.steps import exit_code
from harness.types import Case, FailureKind, Outcome, Relation, Row, Size, Variant, Verdict

CASE = Case("64x64", "fake", Size(64, 64), ("x",))

PASS = Verdict(Outcome.PASS, "")
FAIL = Verdict(Outcome.FAIL, "")
NO_GOLDEN = Verdict(Outcome.NO_GOLDEN, "")
RAISED = Verdict(Outcome.ERROR, "")
HUNG = Verdict(Outcome.TIMEOUT, "")
KILLED = Verdict(Outcome.ERROR, "", infrastructure=True)
SKIP = Verdict(Outcome.SKIP, "")


def rows(*verdicts: Verdict | None, required: bool = True) -> list[Row]:
    return [Row(CASE, Variant("fake", 2, required=required), verdict=verdict) for verdict in verdicts]


class TestExitCode:
    @pytest.mark.parametrize(
        ("verdicts", "code"),
        [
            ((PASS,), 0),
            ((PASS, PASS), 0),
            ((FAIL,), 1),
            ((NO_GOLDEN,), 1),
            ((RAISED,), 1),
            ((HUNG,), 1),
            ((KILLED,), 3),
            ((PASS, FAIL), 1),
            ((PASS, KILLED), 3),
            ((PASS, SKIP), 3),
            ((SKIP, SKIP), 2),
            ((), 2),
            ((None,), 2),
            ((None, SKIP), 2),
            ((KILLED, FAIL), 1),
            ((FAIL, KILLED, SKIP, PASS), 1),
            ((SKIP, FAIL), 1),
            ((KILLED, SKIP), 3),
            ((None, PASS), 0),
        ],
    )
    def test_nothing_judged_before_a_verdict_before_the_machine(
        self, verdicts: tuple[Verdict | None, ...], code: int
    ) -> None:
        assert exit_code(rows(*verdicts)) == code
        assert exit_code(rows(*reversed(verdicts))) == code

    def test_a_skip_that_is_not_required_is_well(self) -> None:
        assert exit_code([*rows(PASS), *rows(SKIP, required=False)]) == 0
        assert exit_code(rows(SKIP, required=False)) == 2


class TestConclude:
    def test_relations_between_the_runs_of_a_row(self, bench: Any) -> None:
        report = steps.conclude(bench.drawn(golden="off"))
        assert (report.exit_code, report.complete, report.platform) == (0, True, "cpu-float32")
        for row in report.rows:
            assert [c.relation for c in row.comparisons] == [
                Relation.EXCHANGE,
                Relation.CONTROL,
                Relation.LAYOUT,
                Relation.PAIR,
                *([Relation.REPEAT] if "repeat" in row.runs else []),
                Relation.FLOOR,
            ]
            for comparison, (first, second) in zip(
                row.comparisons[:4],
                [("replay", "candidate"), ("baseline", "control"), ("baseline", "replay"), ("baseline", "candidate")],
                strict=True,
            ):
                assert (comparison.reference, comparison.candidate) == (row.runs[first], row.runs[second])

    def test_damage_is_told_from_pads(self, bench: Any, repaint: Any) -> None:
        sound = {row.name: row for row in steps.conclude(bench.drawn(golden="off")).rows}
        padded = sound["144x144/fake-u2-h"]
        layout, exchange = padded.comparison(Relation.LAYOUT), padded.comparison(Relation.EXCHANGE)
        assert layout is not None
        assert exchange is not None
        assert exchange.exact
        assert not layout.exact
        broken = steps.conclude(bench.drawn(golden="off", edit=repaint("candidate", 0.01)))
        assert {row.verdict.cause for row in broken.rows if row.verdict} == {"split"}
        assert broken.exit_code == 1

    def test_a_wrong_engine_is_told_from_a_wrong_split(self, bench: Any, repaint: Any) -> None:
        def edit(spec: Any, drawing: Any) -> None:
            repaint("candidate", 0.01)(spec, drawing)
            repaint("control", 0.01)(spec, drawing)

        report = steps.conclude(bench.drawn(golden="off", edit=edit))
        assert {row.verdict.cause for row in report.rows if row.verdict} == {"engine"}

    def test_a_run_that_failed_spoils_only_its_own_rows(self, bench: Any) -> None:
        folder = bench.plan(golden="off")
        victim = next(row for row in folder.plan.rows if row.name == "144x144/fake-u2-w")
        bench.fail(folder, folder.plan.specs[victim.runs["candidate"]], FailureKind.HUNG)
        bench.draw(folder, folder.missing())
        report = steps.conclude(folder)
        outcomes = {row.name: row.verdict.outcome for row in report.rows if row.verdict}
        assert outcomes.pop(victim.name) == Outcome.TIMEOUT
        assert set(outcomes.values()) == {Outcome.PASS}
        assert report.exit_code == 1

    def test_what_was_not_reached_is_skipped(self, bench: Any) -> None:
        folder = bench.plan(golden="off")
        bench.draw(folder, folder.missing(folder.plan.rows[:1]))
        report = steps.conclude(folder, complete=False)
        assert not report.complete
        first, *rest = (row.verdict for row in report.rows)
        assert first is not None
        assert first.outcome == Outcome.PASS
        assert "was not reached" in rest[-1].sentence if rest[-1] else False
        assert report.exit_code == 3

    def test_some_rows_alone(self, bench: Any) -> None:
        folder = bench.drawn(golden="off")
        report = steps.conclude(folder, rows=folder.plan.rows[2:3])
        assert [row.name for row in report.rows] == [folder.plan.rows[2].name]

    def test_versions_of_every_run_are_in_the_report(self, bench: Any) -> None:
        environment = steps.conclude(bench.drawn(golden="off")).environment
        assert environment["python"] == "3.11.9"
        assert {"sp-harness", "system", "numpy"} <= set(environment)

    def test_a_declared_bound_is_measured_whatever_metrics_are_chosen(self, bench: Any) -> None:
        declared = '[[bound]]\nrelation = "layout"\nmetric = "ssim"\ndomain = "image"\nat_least = '
        text = 'metrics = ["p999"]\n' + bench.matrix_file().read_text() + declared
        low, high = (steps.conclude(bench.drawn(text + limit, golden="off")) for limit in ("0.01", "1.1"))
        assert {row.verdict.outcome for row in low.rows if row.verdict} == {Outcome.PASS}
        padded = [row.verdict for row in high.rows if row.case.name == "144x144" and row.verdict]
        assert {(verdict.outcome, verdict.cause) for verdict in padded} == {(Outcome.FAIL, "layout")}
        layout = low.rows[-1].comparison(Relation.LAYOUT)
        assert layout is not None
        assert {figure.metric for figure in layout.figures} == {"psnr", "worst-tile", "ssim", "p999"}

    def test_every_report_format_is_written(self, bench: Any) -> None:
        folder = bench.drawn(golden="off")
        files = steps.write_reports(steps.conclude(folder), folder.path)
        assert set(files) == {"csv", "html", "issue", "json", "junit", "markdown"}
        assert all(path.is_file() and path.is_relative_to(folder.path) for path in files.values())


def test_recording_removes_what_a_killed_process_has_left_half_written(bench: Any) -> None:
    class Draws:
        def execute(self, specs: Any, place: Any) -> Any:
            assert not (folder.path / "runs" / ".abc.building").exists()
            yield from ()

    folder = bench.plan(golden="off")
    half = folder.path / "runs" / ".abc.building" / "image-0.png"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (folder.path / ".report.json.0123abcd").write_text("half")
    steps.record(folder, Draws())  # type: ignore[arg-type]
    assert not half.parent.exists()
    assert not list(folder.path.glob(".report*"))
    assert (folder.path / "plan.json").is_file()


def test_what_was_drawn_on_two_kinds_of_machine_is_not_compared(bench: Any) -> None:
    """A run that was interrupted on one GPU and finished on another."""
    folder = bench.drawn(golden="off")
    here, there = ({"python": "3.11.9", "device": device} for device in ("NVIDIA H200", "NVIDIA A100"))
    moved = next(row for row in folder.plan.rows if row.name == "144x144/fake-u2-h").runs["candidate"]
    for digest, run in folder.runs().items():
        codec.write_json(
            folder.folder_of(run.spec) / "run.json", replace(run, versions=there if digest == moved else here)
        )
    report = steps.conclude(folder)
    found = {row.case.name: row.verdict for row in report.rows}
    assert found["128x128"].outcome is Outcome.PASS
    mixed = found["144x144"]
    assert (mixed.outcome, mixed.infrastructure, mixed.cause) == (Outcome.ERROR, True, "environment")
    assert "NVIDIA H200 in run" in mixed.sentence
    assert f"NVIDIA A100 in run {moved}" in mixed.sentence
    assert report.exit_code == 3
    assert not any(row.comparisons for row in report.rows if row.case.name == "144x144")


def test_planning_anew_sees_other_code(bench: Any) -> None:
    folder = bench.drawn(golden="off")
    older = {spec.digest: spec for spec in (replace(spec, source="older") for spec in folder.plan.specs.values())}
    assert not set(older) & set(folder.plan.specs)
    assert steps.plan(folder.plan.matrix) == folder.plan.graph


def test_the_journal_says_how_far_each_run_came_and_what_it_held(bench: Any) -> None:
    folder = bench.plan(golden="off")
    spec = next(iter(folder.plan.specs.values()))
    events = [Waiting("for GPU 0"), Holding((1,)), Started(spec), Stepped(spec, 1), Stepped(spec, 2), Holding(())]

    class Executor:
        def execute(self, *arguments: Any) -> Iterator[Event]:
            yield from events

    told: list[Event] = []
    steps.record(folder, Executor(), on_event=told.append)  # type: ignore[arg-type]
    assert told == events
    lines = [json.loads(line) for line in (folder.path / "journal.jsonl").read_text().splitlines()]
    assert all(line.pop("time") > 1e9 for line in lines)
    assert lines == [
        {"event": "begun", "missing": len(folder.plan.specs)},
        {"event": "waiting", "message": "for GPU 0"},
        {"event": "devices", "held": [1]},
        {"event": "started", "run": spec.digest},
        {"event": "step", "run": spec.digest, "step": 1},
        {"event": "step", "run": spec.digest, "step": 2},
        {"event": "devices", "held": []},
    ]
