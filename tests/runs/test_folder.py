"""The run folder: made, opened, and read with what has become stale left out."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import codec
from harness.errors import FileError, InfrastructureError, UsageError
from harness.runs.folder import Plan, RunFolder
from harness.session import steps
from harness.types import FailureKind

ONE = """
name = "one"
model = "fake"
steps = 2
[[case]]
size = "144x144"
prompt = "../../up <b>&"
[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
"""


class TestCreate:
    def test_is_named_after_matrix_and_time_and_holds_the_plan(self, bench: Any) -> None:
        folder = bench.plan()
        assert folder.path.parent == bench.root / "reports"
        assert folder.path.name.startswith("bench-2")
        assert folder.plan.name == folder.path.name
        assert RunFolder.open(folder.path).plan == folder.plan

    def test_two_in_one_second_do_not_meet(self, bench: Any) -> None:
        matrix, graph = steps.prepare(bench.matrix_file())
        folders = [RunFolder.create(bench.root / "reports", matrix, graph, "off") for _ in range(5)]
        assert len({folder.path for folder in folders}) == 5
        assert all(folder.plan.name == folder.path.name for folder in folders)
        assert {folder.plan.golden for folder in folders} == {"off"}

    @pytest.mark.parametrize("out", ["taken", "taken/deeper"])
    def test_where_nothing_can_be_written(self, bench: Any, out: str) -> None:
        matrix, graph = steps.prepare(bench.matrix_file())
        (bench.root / "taken").write_text("a file, no folder")
        with pytest.raises(UsageError) as error:
            RunFolder.create(bench.root / out, matrix, graph, "off")
        message = str(error.value)
        assert message.startswith(f"{bench.root / out}: cannot be written (")
        assert message.endswith("name another folder with --out")

    def test_prompts_leave_no_trace_in_names(self, bench: Any) -> None:
        folder = bench.drawn(ONE)
        names = {path.name for path in bench.root.rglob("*")}
        assert "plan.json" in names
        assert not any(piece in name for name in names for piece in ("<", "&", "up"))
        assert folder.plan.matrix.cases[0].prompts == ("../../up <b>&",)


class TestOpen:
    @pytest.mark.parametrize("name", ["empty", "file", "nowhere"])
    def test_what_is_no_run_folder(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("{}")
        with pytest.raises(FileError, match=r"is no run folder \(it has no plan\.json\); name one such as reports/"):
            RunFolder.open(tmp_path / name)

    def test_a_newer_schema(self, bench: Any) -> None:
        path = bench.plan().path
        told = json.loads((path / "plan.json").read_text())
        (path / "plan.json").write_text(json.dumps({**told, "schema": 2}))
        with pytest.raises(FileError, match=r"plan\.json: schema 2 is newer than 1"):
            RunFolder.open(path)

    def test_a_plan_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "plan.json").write_text('{"name": "a plan for the weekend"}')
        with pytest.raises(FileError, match="is no Plan file"):
            RunFolder.open(tmp_path)


class TestRuns:
    def test_are_those_that_are_over(self, bench: Any) -> None:
        folder = bench.plan()
        assert folder.runs() == {}
        some = list(folder.plan.specs.values())[:2]
        bench.draw(folder, some)
        assert set(folder.runs()) == {spec.digest for spec in some}
        assert [run.spec for run in folder.runs().values()] == some

    def test_a_run_of_another_digest_does_not_count(self, bench: Any) -> None:
        folder = bench.drawn(ONE)
        digest, run = next(iter(folder.runs().items()))
        stale = replace(run, spec=replace(run.spec, source="older code"))
        codec.write_json(folder.path / "runs" / digest / "run.json", stale)
        assert digest not in folder.runs()
        assert len(folder.runs()) == len(folder.plan.specs) - 1

    def test_a_run_that_is_no_longer_planned_does_not_count(self, bench: Any) -> None:
        folder = bench.drawn()
        assert len(folder.runs()) == 12
        folder.replan(steps.plan(steps.prepare(bench.matrix_file(ONE))[0]))
        assert len(folder.runs()) == 0
        assert RunFolder.open(folder.path).plan == folder.plan

    def test_a_sample_is_what_was_drawn(self, bench: Any) -> None:
        folder = bench.drawn(ONE)
        for digest, run in folder.runs().items():
            sample = folder.sample(run)
            assert sample.key == digest
            assert sample.latents is not None
            assert sample.latents.shape == (1, 4, 18, 18)
            assert [image.shape for image in sample.images or ()] == [(144, 144, 3)]
            assert sample.trajectory is not None
            np.testing.assert_array_equal(sample.trajectory[-1], sample.latents)


class TestMissing:
    def test_a_finished_run_is_not_computed_twice(self, bench: Any) -> None:
        folder = bench.plan()
        first, *rest = folder.missing()
        bench.draw(folder, [first])
        assert folder.missing() == rest
        bench.draw(folder, rest)
        assert folder.missing() == []

    @pytest.mark.parametrize("kind", FailureKind)
    def test_only_what_the_machine_spoilt_is_tried_again(self, bench: Any, kind: FailureKind) -> None:
        folder = bench.plan(ONE)
        first = folder.missing()[0]
        bench.fail(folder, first, kind)
        assert (first in folder.missing()) is kind.infrastructure

    def test_of_some_rows(self, bench: Any) -> None:
        folder = bench.plan()
        row = folder.plan.rows[-1]
        assert {spec.digest for spec in folder.missing([row])} == set(row.runs.values())


class TestJournal:
    def write(self, folder: RunFolder, *entries: tuple[float, str]) -> None:
        lines = [json.dumps({"time": time, "event": event}) for time, event in entries]
        (folder.path / "journal.jsonl").write_text("\n".join(lines) + "\n")

    def test_nothing_recorded(self, bench: Any) -> None:
        assert bench.plan().recorded_s() == 0

    def test_events_are_kept_with_their_time(self, bench: Any) -> None:
        folder = bench.plan()
        folder.note("begun", missing=3)
        folder.note("finished", run="abc", outcome="ok")
        lines = [json.loads(line) for line in (folder.path / "journal.jsonl").read_text().splitlines()]
        assert [(line["event"], line.get("missing"), line.get("run")) for line in lines] == [
            ("begun", 3, None),
            ("finished", None, "abc"),
        ]
        assert 0 <= folder.recorded_s() < 5

    def test_a_line_is_on_disk_unless_it_is_a_step(self, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = bench.plan()
        sizes: list[int] = []
        monkeypatch.setattr("os.fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
        for event in ("begun", "step", "finished"):
            folder.note(event)
        journal = (folder.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
        assert sizes[0] == len(journal[0])
        assert sizes[-1] == sum(map(len, journal))
        assert len(sizes) == 3  # the first made the file: so is its entry in the folder

    def test_pauses_between_sessions_do_not_count(self, bench: Any) -> None:
        folder = bench.plan()
        self.write(
            folder, (100, "begun"), (103, "finished"), (105.5, "finished"), (9000, "begun"), (9001.25, "finished")
        )
        assert folder.recorded_s() == 6.75

    def test_a_line_cut_short_is_passed_over(self, bench: Any) -> None:
        folder = bench.plan()
        self.write(folder, (100, "begun"), (103, "finished"))
        with (folder.path / "journal.jsonl").open("a") as journal:
            journal.write('{"time": 104, "ev')
        assert folder.recorded_s() == 3

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
    def test_a_full_disk_is_the_machines_fault(self, bench: Any) -> None:
        folder = bench.plan()
        (folder.path / "journal.jsonl").symlink_to("/dev/full")
        with pytest.raises(InfrastructureError) as caught:
            folder.note("begun", missing=3)
        assert str(caught.value) == (
            f"{folder.path}: the journal cannot be written (No space left on device); "
            f"mend that, then finish with: sp-harness run --resume {folder.path}"
        )

    def test_without_a_beginning(self, bench: Any) -> None:
        folder = bench.plan()
        self.write(folder, (1_700_000_000, "finished"), (1_700_000_002, "finished"))
        assert folder.recorded_s() == 2


def test_a_plan_keeps_its_graph(bench: Any) -> None:
    folder = bench.plan()
    again = codec.read_json(folder.path / "plan.json", Plan)
    assert again.graph == folder.plan.graph
    assert all(spec.digest == digest for digest, spec in again.graph.specs.items())
