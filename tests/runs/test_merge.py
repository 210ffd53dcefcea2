"""Shards made one: the report is that of the whole matrix, and what does not belong together is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.errors import FileError, UsageError
from harness.goldens.for_run import propose
from harness.planning.partition import Shard
from harness.runs.folder import Plan, RunFolder
from harness.runs.merge import merge
from harness.session import steps
from harness.types import Explanation, FailureKind, Outcome, Relation, Report, Run, RunSpec

MATRIX = """
name = "m"
model = "fake"
steps = 2
golden_store = "../golden"
metrics = ["psnr"]

[[case]]
size = ["128x128", "144x144", "160x144"]
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["auto", "h", "w"]
"""

Edit = Callable[[Run], Run]


def shard(bench: Any, index: int, of: int = 3, text: str = MATRIX, golden: Any = "off") -> RunFolder:
    """A shard's folder in which nothing is drawn yet."""
    matrix, graph = steps.prepare(bench.matrix_file(text))
    return RunFolder.create(bench.root / "shards", matrix, graph, golden, Shard(index, of))


def drawn(bench: Any, index: int, of: int = 3, **planned: Any) -> RunFolder:
    folder = shard(bench, index, of, **planned)
    bench.draw(folder, folder.plan.specs.values())
    return folder


def edit_runs(folder: RunFolder, edit: Edit) -> None:
    for digest, run in folder.runs().items():
        codec.write_json(folder.path / "runs" / digest / "run.json", edit(run))


def edit_whole(folder: RunFolder, edit: Callable[[Plan], Plan]) -> RunFolder:
    """Plan a shard's whole matrix otherwise."""
    plan = folder.plan
    assert plan.whole is not None
    assert plan.shard is not None
    codec.write_json(folder.path / "plan.json", replace(edit(plan.whole).part(plan.shard), name=plan.name))
    return RunFolder.open(folder.path)


def merged(bench: Any, *folders: RunFolder, mixed: bool = False) -> tuple[RunFolder, Report]:
    folder = merge([folder.path for folder in folders], bench.root / "merged", mixed)
    complete = folder.runs().keys() >= folder.plan.specs.keys()
    return folder, steps.conclude(folder, complete=complete)


def judged(report: Report) -> list[Any]:
    """Rows with their figures and verdicts, as files would hold them."""
    return [codec.encode(row) for row in report.rows]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestAShard:
    def test_says_which_it_is_and_holds_its_part_alone(self, bench: Any) -> None:
        folders = [shard(bench, index) for index in (1, 2, 3)]
        assert [folder.plan.shard for folder in folders] == [Shard(1, 3), Shard(2, 3), Shard(3, 3)]
        assert [folder.path.name.split("-")[1] for folder in folders] == ["1of3", "2of3", "3of3"]
        for folder in folders:
            again = RunFolder.open(folder.path).plan
            assert again == folder.plan
            assert again.name == folder.path.name
            assert {row.case.name for row in again.rows} == {case.name for case in again.matrix.cases}
            assert again.whole is not None
            assert len(again.whole.rows) == 9
        assert sorted(row.name for folder in folders for row in folder.plan.rows) == sorted(
            row.name
            for row in folders[0].plan.whole.rows  # type: ignore[union-attr]
        )

    def test_planned_anew_stays_itself(self, bench: Any) -> None:
        folder = drawn(bench, 2)
        before = folder.plan
        assert before.whole is not None
        folder.replan(steps.plan(before.whole.matrix))
        assert (folder.plan.rows, folder.plan.specs, folder.plan.shard) == (before.rows, before.specs, before.shard)
        assert folder.missing() == []
        assert RunFolder.open(folder.path).plan == folder.plan

    def test_its_report_says_so(self, bench: Any) -> None:
        report = steps.conclude(drawn(bench, 2))
        assert report.exit_code == 0
        assert report.notes[0].startswith("This is shard 2/3 of the matrix")

    def test_one_in_which_all_is_skipped_is_well(self, bench: Any) -> None:
        """The others are judged elsewhere; that nothing was judged at all is for the merged report to say."""
        text = MATRIX.replace("ulysses = 2", "ulysses = 5\nrequired = false")
        report = steps.conclude(drawn(bench, 1, text=text))
        assert {row.verdict.outcome for row in report.rows if row.verdict} == {Outcome.SKIP}
        assert report.exit_code == 0
        assert steps.conclude(drawn(bench, 1, text=text.replace("required = false", ""))).exit_code == 3
        whole = [drawn(bench, index, text=text) for index in (1, 2, 3)]
        assert merged(bench, *whole)[1].exit_code == 2


class TestTheMergedReport:
    def test_is_the_unsharded_one_row_for_row(self, bench: Any) -> None:
        whole = steps.conclude(bench.drawn(MATRIX, golden="off"))
        folder, report = merged(bench, *[drawn(bench, index) for index in (1, 2, 3)])
        assert judged(report) == judged(whole)
        assert [row.verdict.outcome for row in report.rows if row.verdict] == [Outcome.PASS] * 9
        assert (report.exit_code, report.complete, report.platform) == (0, True, whole.platform)
        assert report.matrix == whole.matrix
        assert list(report.runs) == list(whole.runs)
        assert report.environment == whole.environment
        assert folder.path.name.startswith("m-merged-")

    def test_with_failures_too(self, bench: Any, repaint: Any) -> None:
        def broken(spec: RunSpec, drawing: Any) -> None:
            if spec.case.name == "144x144":
                repaint("candidate", 0.01)(spec, drawing)

        whole = steps.conclude(bench.drawn(MATRIX, golden="off", edit=broken))
        shards = [shard(bench, index) for index in (1, 2, 3)]
        for each in shards:
            bench.draw(each, each.plan.specs.values(), broken)
        assert sorted(steps.conclude(each).exit_code for each in shards) == [0, 0, 1]
        _, report = merged(bench, *shards)
        assert judged(report) == judged(whole)
        assert report.exit_code == whole.exit_code == 1

    def test_leaves_the_same_proposals(self, bench: Any) -> None:
        whole = bench.drawn(MATRIX)
        shards = [drawn(bench, index, golden="required") for index in (1, 2, 3)]
        for each in (whole, *shards):
            propose(each, steps.conclude(each))
        folder, report = merged(bench, *shards)
        assert {row.verdict.outcome for row in report.rows if row.verdict} == {Outcome.NO_GOLDEN}
        ours, expected = (
            {name: data for name, data in files(each.path / "proposals").items() if not name.endswith("golden.json")}
            for each in (folder, whole)
        )
        assert len(ours) > 3
        assert ours == expected

    def test_the_order_of_the_arguments_is_of_no_account(self, bench: Any) -> None:
        shards = [drawn(bench, index) for index in (1, 2, 3)]
        (first, a), (second, b) = merged(bench, *shards), merged(bench, shards[2], *reversed(shards))
        assert files(first.path / "runs") == files(second.path / "runs")
        assert judged(a) == judged(b)
        assert first.plan.merged == second.plan.merged
        assert (first.path / "journal.jsonl").read_text() == (second.path / "journal.jsonl").read_text()

    def test_leaves_its_sources_alone(self, bench: Any) -> None:
        shards = [drawn(bench, index) for index in (1, 2, 3)]
        before = [files(each.path) for each in shards]
        folder, report = merged(bench, *shards)
        steps.write_reports(report, folder.path)
        for digest in folder.plan.specs:  # nor does what is computed again reach them through a link
            codec.write_json(folder.path / "runs" / digest / "run.json", {})
        assert [files(each.path) for each in shards] == before

    def test_seconds_are_summed_and_explanations_and_logs_taken_along(self, bench: Any) -> None:
        shards = [drawn(bench, index) for index in (1, 2, 3)]
        for each, begun, seconds in zip(shards, (100.0, 5000.0, 90.0), (1.5, 2.25, 4.0), strict=True):
            lines = [(begun, "begun"), (begun + seconds, "finished")]
            text = "".join(json.dumps({"time": time, "event": event}) + "\n" for time, event in lines)
            (each.path / "journal.jsonl").write_text(text + '{"time": 7, "ev')
            (each.path / "logs" / "0-world-1").mkdir(parents=True)
            (each.path / "logs" / "0-world-1" / "rank-0.log").write_text(each.plan.name)
        row = next(row for row in shards[1].plan.rows)
        comparison = next(c for c in steps.conclude(shards[1]).rows[0].comparisons if c.relation == Relation.EXCHANGE)
        told = Explanation(Relation.EXCHANGE, comparison.reference, comparison.candidate, out_of_place=7)
        codec.write_json(shards[1].explanation_file(comparison), told)
        folder, report = merged(bench, *shards)
        assert report.wall_s == folder.recorded_s() == 7.75
        assert next(r for r in report.rows if r.name == row.name).explanation == told
        for each in shards:
            log = folder.path / "logs" / each.path.name / "0-world-1" / "rank-0.log"
            assert log.read_text() == each.plan.name


class TestWhatIsMissing:
    def test_logs_of_folders_that_share_a_name_are_all_taken_along(self, bench: Any, tmp_path: Path) -> None:
        places = []
        for index in (1, 2, 3):
            folder = drawn(bench, index)
            (folder.path / "logs").mkdir()
            (folder.path / "logs" / "rank-0.log").write_text(folder.plan.name)
            places.append(tmp_path / f"machine-{index}" / "shard")
            places[-1].parent.mkdir()
            folder.path.rename(places[-1])
        made = merge(places, bench.root / "merged")
        told = {path.read_text() for path in (made.path / "logs").glob("*/rank-0.log")}
        assert told == set(made.plan.merged.runs)  # type: ignore[union-attr]
        assert len(told) == 3

    def test_a_missing_shard_is_named_and_never_well(self, bench: Any) -> None:
        shards = [drawn(bench, index) for index in (1, 3)]
        _, report = merged(bench, *shards)
        lost = shard(bench, 2)
        assert not report.complete
        assert report.exit_code == 3
        assert f"Shard 2/3 is missing: {lost.plan.matrix.cases[0].name}." in report.notes
        outcomes = {row.name: row.verdict.outcome for row in report.rows if row.verdict}
        skipped = {row.name for row in lost.plan.rows}
        assert {name for name, outcome in outcomes.items() if outcome == Outcome.SKIP} == skipped

    def test_also_where_a_skip_would_do(self, bench: Any) -> None:
        text = MATRIX + "required = false\n"
        assert merged(bench, drawn(bench, 1, text=text))[1].exit_code == 3

    def test_a_verdict_that_fails_goes_first(self, bench: Any) -> None:
        folder = shard(bench, 1)
        victim = folder.plan.specs[folder.plan.rows[0].runs["candidate"]]
        bench.fail(folder, victim, FailureKind.RAISED)
        bench.draw(folder, folder.missing())
        assert merged(bench, folder)[1].exit_code == 1

    def test_an_interrupted_shard_says_how_much_it_lacks(self, bench: Any) -> None:
        cut_short = shard(bench, 1)
        bench.draw(cut_short, cut_short.missing()[:2])
        _, report = merged(bench, cut_short, drawn(bench, 2), drawn(bench, 3))
        count, name = len(cut_short.plan.specs), cut_short.plan.matrix.cases[0].name
        assert f"Shard 1/3 lacks {count - 2} of its {count} runs: {name}." in report.notes
        assert not report.complete

    def test_what_came_late_is_merged_with_what_was_merged(self, bench: Any) -> None:
        shards = [drawn(bench, index) for index in (1, 2, 3)]
        early, _ = merged(bench, *shards[:2])
        _, report = merged(bench, shards[2], early)
        assert report.complete
        assert judged(report) == judged(merged(bench, *shards)[1])
        assert not any("missing" in note for note in report.notes)

    def test_empty_shards_are_not_missed(self, bench: Any) -> None:
        _, report = merged(bench, *[drawn(bench, index, of=5) for index in (1, 2, 3)])
        assert (report.complete, report.exit_code) == (True, 0)

    def test_a_merged_folder_can_be_finished(self, bench: Any) -> None:
        folder, _ = merged(bench, drawn(bench, 1), drawn(bench, 2))
        again = RunFolder.open(folder.path)
        again.replan(steps.plan(again.plan.matrix))
        assert len(again.missing()) == len(shard(bench, 3).plan.specs)
        bench.draw(again, again.missing())
        report = steps.conclude(again)
        assert (report.complete, report.exit_code) == (True, 0)
        assert not any("missing" in note for note in report.notes)


class TestTwoFoldersOfOneShard:
    def test_a_result_goes_before_a_failure_of_the_machine(self, bench: Any) -> None:
        failed, whole = shard(bench, 1, of=1), drawn(bench, 1, of=1)
        for spec in failed.plan.specs.values():
            bench.fail(failed, spec, FailureKind.KILLED)
        for order in ((failed, whole), (whole, failed)):
            assert merged(bench, *order)[1].exit_code == 0

    def test_equal_results_are_one(self, bench: Any) -> None:
        assert merged(bench, drawn(bench, 1, of=1), drawn(bench, 1, of=1))[1].exit_code == 0

    @pytest.mark.parametrize("other", ["picture", "failure"])
    def test_different_results_are_refused(self, bench: Any, repaint: Any, other: str) -> None:
        first, second = drawn(bench, 1), shard(bench, 1)
        if other == "picture":
            bench.draw(second, second.plan.specs.values(), repaint("", 0.01))
        else:
            for spec in second.plan.specs.values():
                bench.fail(second, spec, FailureKind.RAISED)
        with pytest.raises(UsageError, match=r"hold different results of run [0-9a-f]{16} \(1\d\dx1\d\d, fake\)"):
            merged(bench, first, second)
        assert not (bench.root / "merged").exists()


class TestWhatDoesNotBelongTogether:
    def refused(self, bench: Any, *folders: RunFolder) -> str:
        with pytest.raises(UsageError) as error:
            merged(bench, *folders)
        assert not (bench.root / "merged").exists()
        message = str(error.value)
        assert "\n" not in message
        assert str(folders[-1].path) in message
        return message

    def test_another_matrix(self, bench: Any) -> None:
        message = self.refused(bench, drawn(bench, 1), drawn(bench, 2, text=MATRIX.replace("red", "blue")))
        assert "was planned from another matrix" in message
        assert "(its cases differ)" in message

    def test_another_place_of_the_same_matrix_is_the_same(self, bench: Any) -> None:
        def elsewhere(plan: Plan) -> Plan:
            return replace(plan, matrix=replace(plan.matrix, path="/there/m.toml", golden_store="/there/golden"))

        moved = edit_whole(drawn(bench, 2), elsewhere)
        shards = [drawn(bench, 1), moved, drawn(bench, 3)]
        assert merged(bench, *shards)[1].exit_code == 0
        paths = [folder.path for folder in shards]
        store = str(bench.store)
        assert merge(paths, bench.root / "merged").plan.matrix.golden_store == store  # where the first shard had it
        assert merge(paths, bench.root / "merged", golden_store="/here").plan.matrix.golden_store == "/here"

    def test_another_division(self, bench: Any) -> None:
        message = self.refused(bench, drawn(bench, 1, of=2), drawn(bench, 2, of=3))
        assert "of a matrix divided into 3" in message
        assert "of one divided into 2" in message

    def test_another_golden_policy(self, bench: Any) -> None:
        message = self.refused(bench, drawn(bench, 1), drawn(bench, 2, golden="required"))
        assert "with --golden required" in message

    @pytest.mark.parametrize(
        ("field", "words"), [("weights", "other weights of fake"), ("source", "other code or library versions")]
    )
    def test_other_weights_or_code(self, bench: Any, field: str, words: str) -> None:
        def otherwise(plan: Plan) -> Plan:
            changed = {digest: replace(spec, **{field: "other"}) for digest, spec in plan.specs.items()}
            names = {digest: spec.digest for digest, spec in changed.items()}
            rows = tuple(
                replace(row, runs={role: names[digest] for role, digest in row.runs.items()}) for row in plan.rows
            )
            return replace(plan, rows=rows, specs={spec.digest: spec for spec in changed.values()})

        message = self.refused(bench, drawn(bench, 1), edit_whole(shard(bench, 2), otherwise))
        assert words in message

    def test_an_engine_that_one_machine_lacks(self, bench: Any) -> None:
        def skipped(plan: Plan) -> Plan:
            rows = [replace(row, skip="not installed here", runs={}) for row in plan.rows]
            return replace(plan, rows=tuple(rows), specs={})

        message = self.refused(bench, drawn(bench, 1), edit_whole(shard(bench, 2), skipped))
        assert "the skip of 128x128/fake-u2-auto is 'not installed here'" in message

    def test_no_run_folder(self, bench: Any) -> None:
        with pytest.raises(FileError, match="is no run folder"):
            merge([drawn(bench, 1).path, bench.root], bench.root / "merged")


class TestOtherMachines:
    def shards(self, bench: Any) -> list[RunFolder]:
        shards = [drawn(bench, index) for index in (1, 2, 3)]
        for each, device in zip(shards, ("A100", "H200", "H200"), strict=True):
            edit_runs(each, lambda run, device=device: replace(run, versions={**run.versions, "device": device}))
        return shards

    def test_are_refused(self, bench: Any) -> None:
        shards = self.shards(bench)
        with pytest.raises(UsageError) as error:
            merged(bench, *shards)
        message = str(error.value)
        assert f"device is A100 in {shards[0].path}, H200 in {shards[1].path};" in message
        assert "--mixed" in message

    @pytest.mark.parametrize("mixed", [False, True])
    def test_never_draw_one_case_together(self, bench: Any, mixed: bool) -> None:
        halves = [shard(bench, 1), shard(bench, 1)]
        specs = list(halves[0].plan.specs.values())
        for half, some, device in zip(halves, (specs[:2], specs[2:]), ("A100", "H200"), strict=True):
            bench.draw(half, some)
            edit_runs(half, lambda run, device=device: replace(run, versions={**run.versions, "device": device}))
        with pytest.raises(UsageError) as error:
            merged(bench, *halves, mixed=mixed)
        assert ("its runs are of different machines" if mixed else "add --mixed") in str(error.value)
        assert not (bench.root / "merged").exists()

    def test_are_taken_together_when_asked_and_the_report_says_what_was_drawn_where(self, bench: Any) -> None:
        shards = self.shards(bench)
        _, report = merged(bench, *shards, mixed=True)
        assert report.exit_code == 0
        (alone,) = (case.name for case in shards[0].plan.matrix.cases)
        told = dict(part.split(" (") for part in report.environment["device"].split("; "))
        assert told["A100"] == f"fake {alone})"
        assert alone not in told["H200"]
        assert report.environment["python"] == "3.11.9"
