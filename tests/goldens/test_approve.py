"""The only way in for a golden: compared with, proposed where missing, approved by a person."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.errors import UsageError
from harness.goldens import approve, for_run, golden
from harness.goldens.approve import Change, changes
from harness.judging.comparisons import EDGES
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Case, FailureKind, Outcome, Relation, Report

OFF = "golden = 'off'\n"
Edit = Callable[..., Any]


def judged(folder: RunFolder) -> tuple[RunFolder, Report]:
    return folder, steps.conclude(folder)


def outcomes(report: Report) -> set[Outcome]:
    return {row.verdict.outcome for row in report.rows if row.verdict}


def case_of(report: Report, name: str) -> Case:
    return next(case for case in report.matrix.cases if case.name == name)


def place_of(bench: Any, report: Report, name: str) -> Path:
    return golden.folder_of(bench.store, case_of(report, name), "cpu-float32")


def golden_of(bench: Any, report: Report, name: str = "144x144") -> golden.Golden:
    found = golden.load(place_of(bench, report, name))
    assert found is not None
    return found


def what(pending: list[Change]) -> dict[str, str]:
    return {change.case.name: change.what for change in pending}


@pytest.fixture
def small(bench: Any) -> str:
    """The bench's matrix with its padded size alone, on axis h."""
    text = (bench.matrix_file().read_text()).replace('["128x128", "144x144"]', '"144x144"')
    return str(text).replace('["auto", "h", "w"]', '"h"')


class TestMissing:
    def test_fails_and_leaves_a_proposal(self, bench: Any) -> None:
        folder, report = judged(bench.drawn())
        assert outcomes(report) == {Outcome.NO_GOLDEN}
        assert report.exit_code == 1
        assert report.notes == ("There are no goldens for the platform cpu-float32; proposals lie in the run folder.",)
        assert not (folder.path / "proposals").exists()  # judging writes nothing
        for_run.propose(folder, report)
        for case in folder.plan.matrix.cases:
            proposal = golden.load(golden.folder_of(folder.path / "proposals", case, "cpu-float32"))
            assert proposal is not None
            assert proposal.provenance == {"run": report.name}
            assert set(proposal.approved) == {"fake-u2-auto", "fake-u2-h", "fake-u2-w"}
        assert not bench.store.exists()

    def test_a_proposal_needs_a_picture(self, bench: Any, small: str) -> None:
        folder = bench.plan(small)
        bench.fail(folder, folder.plan.specs[folder.plan.rows[0].runs["baseline"]])
        for_run.propose(*judged(folder))
        assert not (folder.path / "proposals").exists()

    def test_one_of_two(self, bench: Any, small: str) -> None:
        bench.approved(small)
        folder, report = judged(bench.drawn())
        for_run.propose(folder, report)
        proposed = {path.parent.name for path in (folder.path / "proposals").rglob("golden.json")}
        assert proposed == {case_of(report, "128x128").key}
        by_case = {row.case.name: row.verdict.outcome for row in report.rows if row.verdict}
        assert by_case == {"144x144": Outcome.PASS, "128x128": Outcome.NO_GOLDEN}
        assert report.notes == ()
        assert set(report.golden_dirs) == {case_of(report, "144x144").key}


class TestOff:
    @pytest.mark.parametrize("by", ["run", "matrix", "case"])
    def test_is_said_and_nothing_is_asked_for(self, bench: Any, small: str, by: str) -> None:
        text = {"run": small, "matrix": OFF + small, "case": small.replace("[[variant]]", f"{OFF}[[variant]]")}[by]
        folder, report = judged(bench.drawn(text, "off" if by == "run" else "required"))
        assert outcomes(report) == {Outcome.PASS}
        assert report.notes == ("Goldens are off: nothing was held to an approved picture.",)
        assert report.rows[0].comparison(Relation.GOLDEN_BASELINE) is None
        for_run.propose(folder, report)
        assert not (folder.path / "proposals").exists()

    def test_an_approved_picture_is_not_looked_at(self, bench: Any, small: str, repaint: Edit) -> None:
        bench.approved(small)
        _, report = judged(bench.drawn(small, "off", repaint(by=1)))
        assert outcomes(report) == {Outcome.PASS}


class TestApproved:
    def test_passes_from_then_on(self, bench: Any) -> None:
        bench.approved()
        _, report = judged(bench.drawn())
        assert outcomes(report) == {Outcome.PASS}
        assert report.exit_code == 0
        row = report.rows[-1]
        exact = row.comparison(Relation.GOLDEN_BASELINE)
        assert exact is not None
        assert exact.exact
        assert exact.reference == f"golden:{row.case.key}"
        pair, to_golden = row.comparison(Relation.PAIR), row.comparison(Relation.GOLDEN_CANDIDATE)
        assert pair is not None
        assert to_golden is not None
        assert pair.figures == to_golden.figures
        assert pair.figures

    def test_keeps_figures_of_pair_and_layout_for_every_variant(self, bench: Any) -> None:
        report = bench.approved()
        padded, plain = (golden_of(bench, report, name).approved for name in ("144x144", "128x128"))
        assert set(padded) == set(plain) == {"fake-u2-auto", "fake-u2-h", "fake-u2-w"}
        assert plain["fake-u2-h"] == {"pair": None, "layout": None}
        pair = next(row for row in report.rows if row.name == "144x144/fake-u2-h").comparison(Relation.PAIR)
        assert pair is not None
        figure = pair.figure("psnr", "latents")
        assert figure is not None
        assert figure.value is not None
        assert padded["fake-u2-h"]["pair"] == pytest.approx(figure.value, abs=6e-4)

    def test_writes_who_and_when_and_from_what(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        told = golden_of(bench, report).provenance
        assert told["approved_by"] == "the bench"
        assert told["run"] == report.name
        assert told["approved_at"].startswith("20")
        assert len(told["approver_commit"]) == 40 or told["approver_commit"] == "unknown"
        assert {told["source"]} == {run.spec.source for run in report.runs.values()}
        assert told["python"] == "3.11.9"
        assert "numpy" in told

    def test_a_worse_pair_fails(self, bench: Any, small: str, repaint: Edit) -> None:
        bench.approved(small)
        _, report = judged(bench.drawn(small, edit=repaint("replay", 0.3)))
        layout = report.rows[0].verdict
        assert layout is not None
        assert layout.outcome == Outcome.FAIL
        failing = {judgement.relation for judgement in layout.judgements if judgement.ok is False}
        assert Relation.LAYOUT in failing

    def test_another_picture_of_the_baseline_fails(self, bench: Any, small: str, repaint: Edit) -> None:
        bench.approved(small)
        _, report = judged(bench.drawn(small, edit=repaint(by=0.1)))
        (row,) = report.rows
        assert row.verdict is not None
        assert (row.verdict.outcome, row.verdict.cause) == (Outcome.FAIL, "golden drift")

    def test_an_altered_golden_fails_and_is_named(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        picture = place_of(bench, report, "144x144") / "image.png"
        picture.write_bytes(picture.read_bytes() + b"x")
        _, report = judged(bench.drawn(small))
        (row,) = report.rows
        assert report.exit_code == 1
        assert row.verdict is not None
        assert str(picture) in row.verdict.sentence
        comparison = row.comparison(Relation.GOLDEN_BASELINE)
        assert comparison is not None
        assert str(comparison.problem).startswith(f"{picture}: does not match its digest")

    def test_other_weights_are_a_problem_of_their_own(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        place = place_of(bench, report, "144x144")
        codec.write_json(place / "golden.json", replace(golden_of(bench, report), weights="of last year"))
        _, report = judged(bench.drawn(small))
        comparison = report.rows[0].comparison(Relation.GOLDEN_BASELINE)
        assert comparison is not None
        assert comparison.problem == "the golden was approved for other weights of fake; approve the case anew"
        assert outcomes(report) == {Outcome.FAIL}


class TestChanges:
    def test_new(self, bench: Any) -> None:
        assert what(changes(*judged(bench.drawn()))) == {"128x128": "new", "144x144": "new"}

    def test_unchanged(self, bench: Any) -> None:
        bench.approved()
        assert what(changes(*judged(bench.drawn()))) == {"128x128": "unchanged", "144x144": "unchanged"}

    def test_a_picture_changes_by_so_much(self, bench: Any, small: str, repaint: Edit) -> None:
        bench.approved(small)
        folder, report = judged(bench.drawn(small, edit=repaint(by=0.1)))
        comparison = report.rows[0].comparison(Relation.GOLDEN_BASELINE)
        assert comparison is not None
        figure = comparison.figure("psnr", "latents")
        assert figure is not None
        assert what(changes(folder, report)) == {
            "144x144": f"picture changes ({figure.value:.1f} dB to the old one)",
        }

    def test_figures_change_by_so_much(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        place = place_of(bench, report, "144x144")
        old = golden_of(bench, report)
        db = old.approved["fake-u2-h"]["pair"]
        better = {"fake-u2-h": {"pair": 90.5, "layout": None}}
        codec.write_json(place / "golden.json", replace(old, approved=better))
        (text,) = what(changes(*judged(bench.drawn(small)))).values()
        assert text == f"pair of fake-u2-h 90.5 dB -> {db:g} dB; layout of fake-u2-h exact -> {db:g} dB"

    def test_a_variant_that_is_new(self, bench: Any, small: str) -> None:
        bench.approved(small)
        pending = changes(*judged(bench.drawn(small.replace('"h"', '["h", "w"]'))))
        assert what(pending) == {"144x144": "fake-u2-w is approved for the first time"}

    def test_other_weights(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        old = replace(golden_of(bench, report), weights="of last year")
        codec.write_json(place_of(bench, report, "144x144") / "golden.json", old)
        assert what(changes(*judged(bench.drawn(small)))) == {"144x144": "other weights"}

    def test_an_altered_golden_is_replaced(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        (place_of(bench, report, "144x144") / "image.png").write_bytes(b"painted over")
        (text,) = what(changes(*judged(bench.drawn(small)))).values()
        assert text.startswith("replaces an altered golden (")
        assert "image.png" in text

    def test_of_named_cases(self, bench: Any) -> None:
        folder, report = judged(bench.drawn())
        assert what(changes(folder, report, ["144x144"])) == {"144x144": "new"}

    def test_a_name_that_is_none(self, bench: Any) -> None:
        folder, report = judged(bench.drawn())
        with pytest.raises(UsageError, match=r"there is no case '144x145'; did you mean '144x144'\?$"):
            changes(folder, report, ["144x145"])

    def test_a_case_that_was_not_drawn(self, bench: Any) -> None:
        folder = bench.plan()
        for row in folder.plan.rows:
            if row.case.name == "144x144":
                bench.fail(folder, folder.plan.specs[row.runs["baseline"]], FailureKind.KILLED)
            else:
                bench.draw(folder, folder.missing([row]))
        report = steps.conclude(folder)
        assert what(changes(folder, report)) == {"128x128": "new"}
        with pytest.raises(UsageError, match=r"the baseline of case '144x144' was not drawn; run it again$"):
            changes(folder, report, ["144x144"])


class TestApprove:
    def approve(self, folder: RunFolder) -> Report:
        report = steps.conclude(folder)
        for change in changes(folder, report):
            approve.approve(folder, report, change, by="me")
        return report

    def test_figures_of_variants_not_drawn_stay_while_the_picture_does(self, bench: Any, small: str) -> None:
        before = golden_of(bench, bench.approved(small.replace('"h"', '["h", "w"]')))
        report = self.approve(bench.drawn(small))
        assert golden_of(bench, report).approved == before.approved
        assert set(before.approved) == {"fake-u2-h", "fake-u2-w"}

    def test_figures_of_an_older_picture_go_with_it(self, bench: Any, small: str, repaint: Edit) -> None:
        bench.approved(small.replace('"h"', '["h", "w"]'))
        report = self.approve(bench.drawn(small, edit=repaint(by=0.1)))
        assert set(golden_of(bench, report).approved) == {"fake-u2-h"}

    def test_a_new_picture_brings_its_own_figures(self, bench: Any, small: str, repaint: Edit) -> None:
        """The rows of such a run fail against the old picture, which is no fault of their split."""
        bench.approved(small)
        self.approve(bench.drawn(small, edit=repaint(by=0.1)))
        _, report = judged(bench.drawn(small, edit=repaint(by=0.1)))
        assert outcomes(report) == {Outcome.PASS}
        held = {j.relation for row in report.rows for j in (row.verdict.judgements if row.verdict else ()) if j.ok}
        assert held == {*EDGES, Relation.GOLDEN_BASELINE, Relation.GOLDEN_CANDIDATE} - {Relation.FLOOR}

    def test_worse_figures_may_be_approved_if_the_split_is_sound(self, bench: Any, small: str) -> None:
        report = bench.approved(small)
        better = replace(golden_of(bench, report), approved={"fake-u2-h": {"pair": 90.5, "layout": 90.5}})
        codec.write_json(place_of(bench, report, "144x144") / "golden.json", better)
        assert outcomes(judged(bench.drawn(small))[1]) == {Outcome.FAIL}
        self.approve(bench.drawn(small))
        assert outcomes(judged(bench.drawn(small))[1]) == {Outcome.PASS}

    def test_a_broken_split_approves_no_figures(self, bench: Any, small: str, repaint: Edit) -> None:
        folder, report = judged(bench.drawn(small, edit=repaint("candidate")))
        assert outcomes(report) == {Outcome.FAIL}
        assert for_run.approvable(report, report.matrix.cases[0]) == {}
        self.approve(folder)
        assert golden_of(bench, report).approved == {}
        assert golden.load_sample(place_of(bench, report, "144x144"), golden_of(bench, report)).images is not None

    def test_by_default_the_name_is_that_of_git_or_the_user(self, bench: Any, small: str) -> None:
        folder, report = judged(bench.drawn(small))
        (change,) = changes(folder, report)
        approve.approve(folder, report, change)
        assert golden_of(bench, report).provenance["approved_by"]

    def test_a_user_without_a_name_is_a_number(self, bench: Any, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a container that was given a uid; ``getuser`` raises what this version of Python raises."""
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", "")  # no git
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
        folder, report = judged(bench.drawn(small))
        (change,) = changes(folder, report)
        approve.approve(folder, report, change)
        told = golden_of(bench, report).provenance
        assert (told["approved_by"], told["approver_commit"]) == ("uid 4000000000", "unknown")

    def test_survives_reading_the_report_again(self, bench: Any, small: str) -> None:
        folder, report = judged(bench.drawn(small))
        again = codec.decode(Report, json.loads(json.dumps(codec.encode(report))))
        assert what(changes(folder, again)) == {"144x144": "new"}


class TestOfAnEarlierVersion:
    """Goldens whose pictures were reduced: compared by latents, said to lack figures, and replaced on approval."""

    @pytest.fixture
    def reduced(self, bench: Any, small: str) -> Report:
        report: Report = bench.approved(small)
        place, known = place_of(bench, report, "144x144"), golden_of(bench, report)
        (place / "image.png").rename(place / "image-reduced.png")
        files = {name.replace("image.png", "image-reduced.png"): digest for name, digest in known.files.items()}
        codec.write_json(place / "golden.json", replace(known, files=files))
        return report

    def test_latents_are_compared_and_what_lacks_is_said(self, bench: Any, small: str, reduced: Report) -> None:
        _, report = judged(bench.drawn(small))
        assert outcomes(report) == {Outcome.PASS}
        (row,) = report.rows
        compared = row.comparison(Relation.GOLDEN_CANDIDATE)
        assert compared is not None
        assert compared.exact_image is None
        assert compared.note.startswith("the golden holds a reduced picture")
        assert report.notes == (
            "Goldens of an earlier version, approved anew they give PSNR and SSIM of pictures too: 144x144.",
        )

    def test_approving_puts_the_whole_picture_in_its_place(self, bench: Any, small: str, reduced: Report) -> None:
        folder, report = judged(bench.drawn(small))
        (change,) = changes(folder, report)
        assert change.what == "the whole picture takes the place of a reduced one"
        approve.approve(folder, report, change)
        assert golden.is_whole(golden_of(bench, report))
        assert golden_of(bench, report).approved == {**change.kept, **change.figures}
        again, report = judged(bench.drawn(small))
        assert what(changes(again, report)) == {"144x144": "unchanged"}
        assert report.notes == ()


def test_pictures_are_compared_with_goldens_at_every_size(bench: Any, small: str, repaint: Any) -> None:
    large = small.replace('"144x144"', '"320x272"')
    bench.approved(large)
    _, report = judged(bench.drawn(large, edit=repaint("candidate", 0.5)))
    (row,) = report.rows
    for relation in (Relation.PAIR, Relation.GOLDEN_CANDIDATE):
        compared = row.comparison(relation)
        assert compared is not None
        for metric in ("psnr", "ssim"):
            figure = compared.figure(metric, "image")
            assert figure is not None
            assert figure.value is not None
