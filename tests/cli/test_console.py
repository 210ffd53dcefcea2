"""What the terminal says: names of runs, progress, the closing table, a cut explained."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from harness.cli._options import echo
from harness.cli.console import LiveProgress, make_console, name_of, print_report
from harness.execution.events import Finished, Holding, Started, Stepped, Waiting
from harness.planning.cut import cut
from harness.planning.graph import cost_of
from harness.session import steps
from harness.types import Case, Failure, FailureKind, Outcome, Run, RunSpec, Size

CASE = Case("720x1280", "fake", Size(720, 1280), ("x",), steps=4)
BASELINE = RunSpec(CASE, "diffusers", "", "w", "s")
CANDIDATE = RunSpec(CASE, "spatial", "", "w", "s", ulysses=2, plan=cut(CASE.size, 2, "h"))


def screen(terminal: bool = False, width: int = 160) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=width, highlight=False, color_system=None), text


def specs(*some: RunSpec) -> dict[str, RunSpec]:
    return {spec.digest: spec for spec in some}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (BASELINE, "720x1280 diffusers on one device"),
        (replace(BASELINE, image_pad_tokens=48), "720x1280 replay with 48 pads"),
        (CANDIDATE, "720x1280 spatial 2 ranks, axis h"),
        (replace(CANDIDATE, plan=None), "720x1280 spatial 2 ranks"),
        (replace(CANDIDATE, fault="gather-swapped"), "720x1280 spatial 2 ranks, axis h [gather-swapped]"),
    ],
)
def test_runs_have_names_for_people(spec: RunSpec, name: str) -> None:
    assert name_of(spec) == name


def test_cost_grows_with_the_work_and_shrinks_with_ranks() -> None:
    more: list[dict[str, Any]] = [{"steps": 8}, {"size": Size(1440, 1280)}, {"prompts": ("a", "b")}]
    for change in more:
        assert cost_of(replace(BASELINE, case=replace(CASE, **change))) > 1.5 * cost_of(BASELINE)
    assert cost_of(CANDIDATE) == cost_of(BASELINE) / 2


class TestProgress:
    def test_plain_lines_where_there_is_no_terminal(self) -> None:
        console, text = screen()
        with LiveProgress(console, specs(BASELINE, CANDIDATE)) as progress:
            for spec in (BASELINE, CANDIDATE):
                progress(Started(spec))
                for step in range(1, 5):
                    progress(Stepped(spec, step))
                progress(Finished(Run(spec, "ok", wall_s=2.25)))
        assert text.getvalue().splitlines() == [
            "[1/2] 720x1280 diffusers on one device: 2.2 s",
            "[2/2] 720x1280 spatial 2 ranks, axis h: 2.2 s",
        ]

    def test_whom_a_run_waits_for_is_said(self) -> None:
        console, text = screen()
        with LiveProgress(console, specs(BASELINE)) as progress:
            progress(Waiting("waiting for 1 of these GPUs: GPU 0: process 7 (reports/[other])"))
            progress(Holding((0,)))
        assert text.getvalue() == "waiting for 1 of these GPUs: GPU 0: process 7 (reports/[other])\n"

    def test_a_resumed_run_counts_on(self) -> None:
        console, text = screen()
        with LiveProgress(console, specs(BASELINE, CANDIDATE), [CANDIDATE]) as progress:
            progress(Finished(Run(CANDIDATE, "ok")))
        assert text.getvalue().startswith("[2/2]")

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_failure_is_told_at_once_and_as_it_is(self, terminal: bool) -> None:
        console, text = screen(terminal)
        failure = Failure(FailureKind.RAISED, "IndexError: [/red] index 3 of [bold]")
        with LiveProgress(console, specs(CANDIDATE)) as progress:
            progress(Finished(Run(CANDIDATE, "error", failure=failure)))
        assert "axis h: error: IndexError: [/red] index 3 of [bold]" in text.getvalue()

    def test_a_bar_with_the_time_left_on_a_terminal(self) -> None:
        console, text = screen(terminal=True)
        faulty = replace(CANDIDATE, fault="gather-swapped")
        with LiveProgress(console, specs(faulty, BASELINE)) as progress:
            progress(Started(faulty))
            progress(Stepped(faulty, 4))
        shown = text.getvalue()
        assert "[0/2] 720x1280 spatial 2 ranks, axis h [gather-swapped]" in shown
        assert " 30%" in shown  # nine tenths of a run that is a third of the work
        assert "left" in shown

    def test_ends_at_a_hundred_percent_however_many_steps_were_told(self) -> None:
        console, text = screen(terminal=True)
        with LiveProgress(console, specs(BASELINE, CANDIDATE)) as progress:
            for spec, told in ((BASELINE, 4), (CANDIDATE, 1)):
                progress(Started(spec))
                for step in range(told):
                    progress(Stepped(spec, step + 1))
                progress(Finished(Run(spec, "ok")))
        assert "100%" in text.getvalue()


class TestReport:
    def printed(self, report: Any, **files: Path) -> str:
        console, text = screen()
        print_report(console, report, files)
        return text.getvalue()

    def test_a_row_for_every_case_and_axis(self, bench: Any) -> None:
        report = steps.conclude(bench.drawn(golden="off"))
        text = self.printed(report, html=Path("reports/x/index.html"))
        lines = text.splitlines()
        figures = ("exchange", "control", "layout", "pair", "golden", "pair image", "golden image")
        for name in ("case", "shards", "pads", *figures, "verdict"):
            assert name in lines[0]
        for row, line in zip(report.rows, lines[1:], strict=False):
            assert row.plan is not None
            cells = line.split()
            assert cells[:2] == [row.case.name, row.variant.label]
            assert f"{row.plan.axis} {'+'.join(map(str, row.plan.shard_tokens))}" in line
            assert f"{row.plan.pad_tokens} (+{row.plan.surplus_pad_tokens})" in line
            assert "pass" in cells
        assert "pass (run of fake-u2-auto)" in text
        padded = next(line for line in lines if "144x144" in line)
        assert "exact" in padded
        assert re.search(r" \d+\.\d dB / 0\.\d{4} ", padded)
        assert "6 pass in 0 s, exit code 0" in text
        assert lines[-1] == "report: reports/x/index.html"
        assert "Goldens are off" in text

    @pytest.mark.parametrize("width", [80, 40])
    def test_on_a_narrow_terminal_each_row_is_a_paragraph(self, bench: Any, width: int) -> None:
        report = steps.conclude(bench.drawn(golden="off"))
        console, text = screen(terminal=True, width=width)
        print_report(console, report, {})
        lines = text.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        words = " ".join(text.getvalue().split())
        assert len(report.rows) == words.count("verdict pass")
        for row in report.rows:
            assert row.plan is not None
            shards = f"{row.plan.axis} {'+'.join(map(str, row.plan.shard_tokens))}"
            assert f"case {row.case.name}, variant {row.variant.label}, shards {shards}, pads" in words

    def test_what_is_wrong_is_said_in_words(self, bench: Any, repaint: Any) -> None:
        report = steps.conclude(bench.drawn(golden="off", edit=repaint("candidate", 0.01)))
        text = self.printed(report)
        words = " ".join(text.split())
        for row in report.rows:
            assert row.verdict is not None
            assert row.verdict.sentence in words
        assert "6 fail in 0 s, exit code 1" in text

    def test_rows_of_which_the_same_is_said_share_a_line(self, bench: Any) -> None:
        report = steps.conclude(bench.drawn(golden="off"))
        same = [
            replace(row, verdict=replace(row.verdict, outcome=Outcome.FAIL, sentence="one reason for all"))
            for row in report.rows
            if row.verdict
        ]
        text = self.printed(replace(report, rows=tuple(same)))
        first = ", ".join(row.name for row in same[:3])
        assert f"{first} and 3 more rows: one reason for all" in " ".join(text.split())
        assert text.count("one reason for all") == 1

    def test_missing_goldens_come_with_the_command_that_approves(self, bench: Any) -> None:
        report = steps.conclude(bench.drawn())
        text = self.printed(report, html=Path("reports/one/index.html"))
        assert "To approve the missing goldens: sp-harness approve reports/one\n" in text
        assert "6 no_golden" in text

    def test_skipped_and_interrupted(self, bench: Any) -> None:
        text = bench.matrix_file().read_text().replace("ulysses = 2", "ulysses = 4")
        report = steps.conclude(bench.plan(text, "off"), complete=False)
        printed = self.printed(report)
        assert "Ulysses degree 4 does not divide the 6 heads" in " ".join(printed.split())
        assert "interrupted; 6 skip" in printed
        assert report.exit_code == 2

    def test_markup_in_a_sentence_is_text(self, bench: Any) -> None:
        report = steps.conclude(bench.drawn(golden="off"))
        row = report.rows[0]
        assert row.verdict is not None
        broken = replace(row, verdict=replace(row.verdict, outcome=Outcome.ERROR, sentence="[/] said [bold]x[/bold]"))
        text = self.printed(replace(report, rows=(broken,), notes=("[red]a note",)))
        assert "[/] said [bold]x[/bold]" in text
        assert "[red]a note" in text


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.print(Text("failed: \x1b]0;title\x07\x9b31m\u202etxet\ttab\nnext"))
    echo("a/\x1b[2J\x7f")
    out, _ = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["failed:", r"\x1b]0;title\x9b31m\u202etxet", "tab"], ["next"], [r"a/\x1b[2J\x7f"]
    ]  # fmt: skip


def test_a_log_is_wide_enough_for_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("x" * 150)
    make_console(stderr=True).print("y" * 150)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["x" * 150]
    assert err.splitlines() == ["y" * 150]
