"""Entries in a row: what is newly broken, since when, what moved; and lines that outlive their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.errors import UsageError
from harness.history import files, page, words
from harness.history.changes import EXACT, Changes, Limits, changes, table
from harness.history.entry import Entry, EntryRow, entry_of
from harness.history.issue import issue
from harness.history.nights import comparable
from harness.history.update import update
from harness.session import steps
from harness.types import Report

ROW = "720x720/spatial-u2-h"
HERE = {"sp-harness": "0.1.0", "torch": "2.13.0", "device": "NVIDIA H200", "driver": "570.86"}
WELL = EntryRow("pass", figures_db={"exchange_db": 60.0, "pair_db": 26.0}, step_s=0.060, peak_memory_bytes=12 * 10**9)
BROKEN = EntryRow("fail", "attention local", "Splitting damages the picture.", {"exchange_db": 21.0}, 0.060)


def entry(number: int, rows: Mapping[str, EntryRow], **changed: Any) -> Entry:
    failing = any(row.outcome not in ("pass", "skip") for row in rows.values())
    made = Entry(
        run=f"nightly-{number}",
        matrix="nightly",
        started_at=f"2026-01-{number:02d}T02:17:00+00:00",
        exit_code=int(failing),
        complete=True,
        wall_s=600.0 + number,
        platform="cuda-nvidia-h200-bfloat16",
        environment=HERE,
        rows=rows,
    )
    return replace(made, **changed)


def series(*rows: EntryRow | None, **changed: Any) -> list[Entry]:
    """Entries of one row, which may be absent."""
    return [entry(number, {} if row is None else {ROW: row}, **changed) for number, row in enumerate(rows, 1)]


class TestFailing:
    def test_newly(self) -> None:
        found = changes(series(WELL, WELL, BROKEN))
        (failing,) = found.newly_failing
        assert (failing.row, failing.cause, failing.since_run, failing.num_runs) == (
            ROW,
            "attention local",
            "nightly-3",
            1,
        )
        assert found.still_failing == found.mended == ()

    def test_since_the_first_of_the_nights_on_which_it_fails_without_a_pass_between(self) -> None:
        found = changes(series(BROKEN, WELL, BROKEN, BROKEN, BROKEN))
        (failing,) = found.still_failing
        assert (failing.since_run, failing.num_runs) == ("nightly-3", 3)
        assert found.newly_failing == ()

    @pytest.mark.parametrize("between", [None, EntryRow("skip"), EntryRow(None)], ids=["absent", "skip", "unjudged"])
    def test_a_night_without_a_verdict_says_nothing(self, between: EntryRow | None) -> None:
        (failing,) = changes(series(WELL, BROKEN, between, BROKEN)).still_failing
        assert (failing.since_run, failing.num_runs) == ("nightly-2", 2)
        assert changes(series(BROKEN, between, WELL)).mended == (ROW,)

    @pytest.mark.parametrize("between", [None, EntryRow("skip"), EntryRow(None)], ids=["absent", "skip", "unjudged"])
    def test_after_a_night_without_a_verdict_nothing_is_newly_failing(self, between: EntryRow | None) -> None:
        found = changes(series(WELL, between, BROKEN))
        assert (found.newly_failing, [failing.row for failing in found.failing_after_gap]) == ((), [ROW])
        assert found.failing == found.failing_after_gap
        assert ": 1 failing, not judged in the run before" in words.headline(found)

    def test_mended(self) -> None:
        found = changes(series(BROKEN, WELL))
        assert (found.mended, found.failing) == ((ROW,), ())

    @pytest.mark.parametrize("outcome", ["fail", "error", "timeout", "no_golden"])
    def test_every_way_of_not_passing(self, outcome: str) -> None:
        (failing,) = changes(series(WELL, EntryRow(outcome, None, "broke"))).newly_failing
        assert failing.sentence == "broke"

    def test_a_row_that_fails_on_its_first_night(self) -> None:
        found = changes([entry(1, {"a": WELL}), entry(2, {"a": WELL, ROW: BROKEN})])
        assert [failing.row for failing in found.newly_failing] == [ROW]
        assert found.appeared == (ROW,)

    def test_the_first_night_of_all(self) -> None:
        found = changes(series(WELL))
        assert found == Changes(found.last, None)
        assert words.headline(found) == "nightly, 2026-01-01 02:17: all well, the first run"


class TestDrift:
    def drifting(self, *values: float | None) -> list[tuple[float, float]]:
        rows = [replace(WELL, figures_db={"exchange_db": value, "pair_db": 26.0}) for value in values]
        return [(moved.before, moved.now) for moved in changes(series(*rows)).drifting]

    def test_a_figure_that_falls_a_little_every_night(self) -> None:
        assert self.drifting(60.0, 59.7, 59.4, 59.1, 58.8, 58.7) == [], "less than counts as a change"
        assert self.drifting(60.0, 59.5, 59.0, 58.5, 58.0, 57.5) == [(59.5, 58.0)]
        assert self.drifting(60.0, 59.5, 59.0, 58.5, 58.0) == [], "too few nights"

    def test_what_scatters_rises_or_is_exact_does_not_drift(self) -> None:
        assert self.drifting(60.0, 59.5, 60.2, 59.4, 60.1, 59.6) == []
        assert self.drifting(57.5, 58.0, 58.5, 59.0, 59.5, 60.0) == []
        assert self.drifting(*[None] * 8) == []

    def test_it_is_said_and_what_moved_at_once_is_not_said_twice(self) -> None:
        rows = [replace(WELL, figures_db={"pair_db": 60 - 0.5 * number}) for number in range(6)]
        assert ("Drifting from run to run, within the bounds so far", [f"{ROW}: pair 59.5 dB -> 58.0 dB"]) in (
            words.sections(changes(series(*rows)))
        )
        rows.append(replace(WELL, figures_db={"pair_db": 50.0}))
        found = changes(series(*rows))
        assert ([moved.now for moved in found.figures], found.drifting) == ([50.0], ())


class TestNights:
    def shard(self, index: int, rows: Mapping[str, EntryRow], hour: int = 2, **changed: Any) -> Entry:
        run = f"nightly-{index}of2-20260101-0{hour}0000"
        return entry(1, rows, run=run, started_at=f"2026-01-01T0{hour}:00:00+00:00", **changed)

    def test_the_shards_of_one_night_count_once(self) -> None:
        shards = [self.shard(1, {"a": WELL}), self.shard(2, {"b": BROKEN}, hour=3)]
        (one,) = comparable(shards)
        assert (one.rows, one.exit_code, one.complete) == ({"a": WELL, "b": BROKEN}, 1, True)
        assert one.run == "nightly (2 of 2 shards)"
        assert one.comparable_environment == shards[0].comparable_environment
        (half,) = comparable(shards[:1])
        assert not half.complete

    def test_shards_of_two_nights_are_two(self) -> None:
        again = replace(self.shard(1, {"a": WELL}), started_at="2026-01-02T02:00:00+00:00")
        found = comparable([self.shard(1, {"a": WELL}), self.shard(2, {"b": WELL}), again])
        assert [sorted(one.rows) for one in found] == [["a", "b"], ["a"]]

    def test_a_merged_run_counts_and_its_shards_do_not(self) -> None:
        shards = [self.shard(1, {"a": WELL}), self.shard(2, {"b": WELL})]
        merged = entry(1, {"a": WELL, "b": WELL}, run="nightly-merged-20260101-040000")
        assert comparable([*shards, merged]) == [merged]

    def test_a_run_without_a_report_is_a_night_in_which_nothing_was_judged(self, bench: Any, tmp_path: Path) -> None:
        folder = bench.plan()
        report = steps.conclude(bench.drawn())
        codec.write_json(tmp_path / "reports" / "other" / "report.json", report)
        folder.path.rename(tmp_path / "reports" / "bench-20991231-020000")
        entries, problems = files.read([tmp_path / "reports"], tmp_path / "none.jsonl")
        assert (problems, [one.has_report for one in entries]) == ([], [True, False])
        found = changes(comparable(entries))
        assert words.headline(found) == "bench, 2099-12-31 02:00: the run left no report"
        assert (found.environment, found.failing) == ((), ())
        files.keep(tmp_path / "kept.jsonl", entries)
        assert files.lines(tmp_path / "kept.jsonl")[0] == entries


class TestMoved:
    def test_a_figure_that_moved_beyond_the_limit(self) -> None:
        for db, moved in ((25.1, False), (24.9, True), (27.1, True)):
            found = changes(series(WELL, replace(WELL, figures_db={"exchange_db": 60.0, "pair_db": db})))
            assert [(m.what, m.before, m.now) for m in found.figures] == ([("pair_db", 26.0, db)] if moved else [])

    def test_exact_and_not_exact_always_counts(self) -> None:
        exact = replace(WELL, figures_db={"exchange_db": None, "pair_db": 26.0})
        (gone,) = changes(series(exact, WELL), Limits(moved_db=1000)).figures
        assert (gone.what, gone.before, gone.now) == ("exchange_db", EXACT, 60.0)
        assert words.sections(changes(series(exact, WELL)))[0][1] == [f"{ROW}: exchange exact -> 60.0 dB"]
        assert changes(series(exact, exact)).figures == ()

    def test_times_go_by_the_median_of_the_nights_before(self) -> None:
        usual = [replace(WELL, step_s=step_s) for step_s in (0.06, 0.5, 0.06)]  # one run was disturbed
        (slow,) = changes(series(*usual, replace(WELL, step_s=0.08))).slower
        assert (slow.before, slow.now) == (0.06, 0.08)
        assert changes(series(*usual, replace(WELL, step_s=0.07))).slower == ()
        assert changes(series(*usual, replace(WELL, step_s=0.07)), Limits(slower=1.1)).slower != ()

    def test_times_of_few_nights_are_not_compared(self) -> None:
        """Small pictures take half as long again on some entries, and one run before says nothing of that."""
        slow = replace(WELL, step_s=1.0)
        assert changes(series(WELL, WELL, slow)).slower == ()
        assert len(changes(series(WELL, WELL, WELL, slow)).slower) == 1

    def test_nothing_is_compared_across_environment(self) -> None:
        entries = [entry(number, {ROW: WELL}) for number in (1, 2, 3)]
        moved = replace(WELL, figures_db={"exchange_db": None, "pair_db": 40.0}, step_s=1.0)
        after = entry(4, {ROW: moved}, environment={**HERE, "driver": "580.1"})
        found = changes([*entries, after])
        assert (found.figures, found.slower) == ((), ())
        assert found.environment == ("driver 570.86 -> 580.1",)
        back = entry(5, {ROW: moved})
        assert [moved.what for moved in changes([*entries, after, back]).slower] == ["step_s"]

    def test_another_version_of_ourselves_is_no_other_environment(self) -> None:
        """What is under development is what the history is about."""
        entries = [entry(number, {ROW: WELL}) for number in (1, 2, 3)]
        after = entry(4, {ROW: replace(WELL, step_s=1.0)}, environment={**HERE, "sp-harness": "0.2.0"})
        assert len(changes([*entries, after]).slower) == 1


def test_the_table_tells_equal_from_not_measured() -> None:
    frame = table(series(replace(WELL, figures_db={"exchange_db": None})))
    assert frame.exchange_db[0] == EXACT
    assert frame.pair_db.isna()[0]
    assert len(table([entry(1, {})])) == 0


class TestPages:
    def draw(self, entries: Sequence[Entry], folder: Path) -> tuple[page.Trend, str]:
        trend = page.trend(entries, changes(entries))
        page.write([trend], folder)
        return trend, (folder / trend.page).read_text(encoding="utf-8")

    def test_a_curve_is_broken_where_the_environment_change(self, tmp_path: Path) -> None:
        entries = series(WELL, WELL, WELL, WELL)
        entries[2:] = [replace(one, environment={**HERE, "torch": "2.14.0"}) for one in entries[2:]]
        trend, text = self.draw(entries, tmp_path)
        (line,) = trend.lines
        assert line.curves[0] is not None
        assert len(line.curves[0].lines) == 2
        (at,) = trend.breaks
        xs = [dot.x for dot in line.curves[0].dots]
        assert xs[1] < at < xs[2]
        assert "torch 2.14.0" in text
        assert "torch 2.13.0" in text

    def test_exact_stands_above_every_figure(self, tmp_path: Path) -> None:
        entries = series(WELL, replace(WELL, figures_db={"exchange_db": None}), WELL)
        (line,) = self.draw(entries, tmp_path)[0].lines
        assert line.curves[0] is not None
        low, exact, _ = line.curves[0].dots
        assert exact.exact
        assert exact.y < low.y
        assert line.curves[1] is not None
        assert line.curves[1].last == "26.0 dB"

    def test_any_text_is_shown_as_text(self, tmp_path: Path) -> None:
        nasty = '<script>alert("x")</script>'
        rows = {f"{nasty}/a": EntryRow("error", nasty, nasty)}
        _, text = self.draw([entry(1, rows, platform=nasty)], tmp_path)
        assert "<script" not in text
        assert "<script" not in words.markdown([(changes([entry(1, rows)]), [entry(1, rows)])])

    def test_rows_that_fail_come_first_and_old_nights_are_not_drawn(self, tmp_path: Path) -> None:
        entries = [entry(1, {"a": WELL, "b": BROKEN}, run=f"n{number}") for number in range(page.SHOWN_ENTRIES + 5)]
        trend, _ = self.draw(entries, tmp_path)
        assert [line.name for line in trend.lines] == ["b", "a"]
        assert len(trend.entries) == page.SHOWN_ENTRIES


def test_rows_that_fail_alike_share_a_line() -> None:
    rows = {f"{number}x16/a": BROKEN for number in range(100)}
    ((head, lines),) = words.sections(changes([entry(1, rows)]))
    assert head == "Newly failing"
    (line,) = lines
    assert "and 92 more [attention local]: Splitting damages the picture." in line


# ---------------------------------------------------------------- on disk


@pytest.fixture
def report(bench: Any) -> Report:
    folder = bench.drawn(golden="off")
    made: Report = steps.conclude(folder)
    steps.write_reports(made, folder.path)
    return made


def folder_of(bench: Any, report: Report) -> Path:
    return Path(bench.root / "reports" / report.name)


class TestFiles:
    def test_a_report_becomes_a_line_and_is_read_again(self, bench: Any, report: Report, tmp_path: Path) -> None:
        made = entry_of(report)
        assert set(made.rows) == {row.name for row in report.rows}
        padded, plain = made.rows["144x144/fake-u2-h"], made.rows["128x128/fake-u2-h"]
        assert padded.outcome == plain.outcome == "pass"
        assert set(padded.figures_db) == {"exchange_db", "pair_db", "layout_db", "pair_image_db"}
        assert plain.figures_db["pair_db"] is None
        assert padded.figures_db["pair_db"] is not None
        assert padded.step_s is not None
        assert made.environment["weights of fake"]
        kept = tmp_path / "kept" / "history.jsonl"
        assert files.keep(kept, [made]) == 1
        assert files.keep(kept, [made]) == 0
        assert files.lines(kept) == ([made], [])
        assert len(kept.read_bytes()) < len((folder_of(bench, report) / "report.json").read_bytes()) / 10

    def test_pictures_and_reports_may_be_thrown_away(self, bench: Any, report: Report, tmp_path: Path) -> None:
        kept = tmp_path / "history.jsonl"
        entries, _ = files.read([folder_of(bench, report)], kept)
        files.keep(kept, entries)
        (folder_of(bench, report) / "report.json").unlink()
        assert files.read([bench.root / "reports"], kept) == (entries, [])

    def test_one_that_was_judged_again_counts_once(self, report: Report, tmp_path: Path) -> None:
        kept = tmp_path / "history.jsonl"
        made = entry_of(report)
        files.keep(kept, [made])
        files.keep(kept, [replace(made, exit_code=1)])
        assert len(kept.read_text().splitlines()) == 2
        assert [one.exit_code for one in files.lines(kept)[0]] == [1]

    def test_a_report_counts_before_the_line_of_its_run_wherever_that_lies(
        self, report: Report, tmp_path: Path
    ) -> None:
        """``sp-harness history reports`` finds the lines it keeps in the folder that it reads."""
        kept = tmp_path / "reports" / "history" / "history.jsonl"
        files.keep(kept, [replace(entry_of(report), exit_code=1)])
        codec.write_json(tmp_path / "reports" / report.name / "report.json", report)
        for path in (kept, tmp_path / "none.jsonl"):
            assert files.read([tmp_path / "reports"], path)[0] == [entry_of(report)]
        assert files.keep(kept, files.read([tmp_path / "reports"], kept)[0]) == 1
        assert files.lines(kept)[0] == [entry_of(report)]

    def test_kept_reports_in_folders_as_a_chain_of_artifacts_leaves_them(self, report: Report, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            started_at = f"2026-01-0{number}T00:00:00+00:00"
            codec.write_json(tmp_path / "kept" / str(number) / "report.json", replace(report, started_at=started_at))
        entries, _ = files.read([tmp_path / "kept"], tmp_path / "none.jsonl")
        assert [one.started_at[:10] for one in entries] == ["2026-01-01", "2026-01-02", "2026-01-03"]

    def test_what_cannot_be_read_is_named_and_left_out(self, report: Report, tmp_path: Path) -> None:
        old = json.loads(json.dumps(codec.encode(report)))
        del old["rows"][0]["case"]["prompts"]
        for name, text in (("old", json.dumps(old)), ("torn", "{"), ("newer", json.dumps({**old, "schema": 99}))):
            (tmp_path / "kept" / name).mkdir(parents=True)
            (tmp_path / "kept" / name / "report.json").write_text(text)
        kept = tmp_path / "history.jsonl"
        files.keep(kept, [entry_of(report)])
        with kept.open("a") as file:
            file.write(json.dumps({**codec.encode(entry_of(report)), "schema": 99}) + "\n" + '{"run": "cut sh')
        entries, problems = files.read([tmp_path / "kept"], kept)
        assert entries == [entry_of(report)]
        assert len(problems) == 5
        for word in (
            "old/report.json",
            "torn/report.json",
            "newer/report.json",
            "jsonl:2: schema 99",
            "jsonl:3: is no",
        ):
            assert any(word in problem for problem in problems), problems

    def test_a_line_cut_short_does_not_swallow_the_next(self, report: Report, tmp_path: Path) -> None:
        kept = tmp_path / "history.jsonl"
        kept.write_text('{"run": "cut sh')
        files.keep(kept, [entry_of(report)])
        assert files.lines(kept)[0] == [entry_of(report)]

    def test_nothing_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no judged run is there"):
            files.read([tmp_path], tmp_path / "history.jsonl")
        with pytest.raises(UsageError, match="absent: does not exist"):
            files.read([tmp_path / "absent"], tmp_path / "history.jsonl")


class TestIssue:
    def test_says_since_when(self, bench: Any, repaint: Any) -> None:
        past = bench.root / "history"
        for edit in (None, repaint("candidate"), repaint("candidate")):
            folder = bench.drawn(golden="off", edit=edit)
            steps.write_reports(steps.conclude(folder), folder.path)
        update([bench.root / "reports"], past, Limits(1e9, 1.0))
        title, empty, *rest = issue(bench.root / "reports", past, link="https://x/1").splitlines()
        assert title.startswith("bench: Splitting damages the picture at 128x128 on ")
        assert empty == ""
        text = "\n".join(rest)
        assert "**Still failing**" in text
        assert "2 runs)" in text
        assert text.endswith("Look at it: https://x/1")

    def test_without_a_report_the_log_has_to_do(self, tmp_path: Path) -> None:
        log = tmp_path / "run.log"
        log.write_text("setting up\nsp-harness: matrices/nightly.toml: golden_store s3://b holds 3 goldens\n")
        title, _, *rest = issue(tmp_path, log=log).splitlines()
        assert title == "The run ended without a report: matrices/nightly.toml: golden_store s3://b holds 3 goldens"
        assert "    setting up" in rest
        assert issue(tmp_path / "absent").startswith("The run ended without a report\n")
