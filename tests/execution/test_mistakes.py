"""Mistakes of an engine at any stage, and whom it shares processes with: real ranks of a made engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import plugins
from harness.errors import ConfigError, UsageError
from harness.execution.events import Finished
from harness.execution.group_key import GroupKey
from harness.execution.pool import Pool
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import FailureKind, Outcome, Run, RunSpec

WAYWARD = """
import numpy as np
from harness.engines.fake import FakeEngine
from harness.plugins import Option


class Wayward(FakeEngine):
    name = "wayward"
    baseline = "fake"
    process = "shared"
    load_time = ("ulysses", "flavour")
    options = {"does": Option(str, "right"), "flavour": Option(int, 0), "step_s": Option(float, 0.0)}

    @classmethod
    def limits(cls, case, variant, model):
        does = variant.options.get("does")
        if does == "raise in limits":
            raise KeyError("no such size")
        return 7 if does == "number from limits" else super().limits(case, variant, model)

    @classmethod
    def preload(cls, spec):
        return "numpy" if spec.options.get("does") == "text from preload" else ()

    def load(self, worker):
        super().load(worker)
        if worker.configuration["flavour"] == 13:
            raise ValueError("no such flavour")
        if worker.configuration["flavour"] == 14:
            raise SystemExit(3)

    def draw(self, spec):
        drawing, does = super().draw(spec), spec.options.get("does", "right")
        if drawing is None:
            return None
        self.worker.count("flavour", self.worker.configuration["flavour"])
        self.worker.count("told", self.worker.configuration["ulysses"])
        if does == "no latents":
            drawing.latents = drawing.trajectory = None
        elif does == "flat latents":
            drawing.latents = drawing.latents.ravel()
        elif does == "narrow latents":
            drawing.latents = drawing.latents[:, :, :, 1:]
        elif does == "nan":
            drawing.latents = drawing.latents * np.nan
        elif does == "words for latents":
            drawing.latents = ["a", "b"]
        elif does == "no pictures":
            drawing.images = []
        elif does == "arrays for pictures":
            drawing.images = [np.zeros((3, 3))]
        elif does == "tokens":
            drawing.caption_tokens = 5
        elif does == "seconds":
            drawing.times = 1.5
        elif does == "count":
            self.worker.counters["bytes"] = "many"
        elif does == "tuple":
            return drawing.images, drawing.latents
        return drawing
"""


@pytest.fixture
def wayward(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An engine of another distribution; the folder is that of its module."""
    site = tmp_path / "site"
    info = site / "wayward_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "wayward_module.py").write_text(WAYWARD, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wayward-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[sp_harness.engines]\nwayward = wayward_module:Wayward\n", encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    yield site
    sys.modules.pop("wayward_module", None)


def matrix(folder: Path, variants: list[Mapping[str, Any]], size: str = "128x128") -> Path:
    """A matrix of one case; each variant is the options of the engine on two ranks."""
    tables = [
        '[[variant]]\nengine = "wayward"\nulysses = 2\naxis = "h"\noptions = { '
        + ", ".join(f"{key} = {value!r}" for key, value in options.items())
        + " }\n"
        for options in variants
    ]
    text = 'schema = 1\nmodel = "fake"\nsteps = 2\ngolden = "off"\ngolden_store = "golden"\n'
    path = folder / "own.toml"
    path.write_text(text + f'[[case]]\nsize = "{size}"\nprompt = "x"\n' + "".join(tables), encoding="utf-8")
    return path


def test_mistakes_in_a_drawing_are_errors_of_their_rows_and_no_latents_are_none(wayward: Path, tmp_path: Path) -> None:
    errors = {
        "flat latents": "DrawingError: engine 'wayward': draw returned latents of shape",
        "words for latents": "DrawingError: engine 'wayward': draw returned latents of type list",
        "no pictures": "DrawingError: engine 'wayward': draw returned 0 pictures for a case of 1; return one for each",
        "arrays for pictures": "DrawingError: engine 'wayward': draw returned images [array(",
        "tokens": "DrawingError: engine 'wayward': draw returned caption_tokens 5; return a tuple of integers",
        "seconds": "DrawingError: engine 'wayward': draw returned times 1.5; return Times",
        "count": "DrawingError: engine 'wayward': Worker.count takes integers",
        "tuple": "DrawingError: engine 'wayward': draw returned tuple on rank 0; return a harness.plugins.Drawing",
    }
    fails = {
        "nan": "latents hold NaN or infinity",
        "narrow latents": "sizes differ: latents should be 1 of 16x16 cells, 4 channels, is 1 of 15x16 cells",
    }
    planned, graph = steps.prepare(matrix(tmp_path, [{"does": does} for does in (*errors, *fails, "no latents")]))
    folder = RunFolder.create(tmp_path / "reports", planned, graph, "off")
    with Pool(folder.path / "logs") as workers:
        steps.record(folder, workers)
    report = steps.conclude(folder)
    found = {row.variant.options["does"]: row.verdict for row in report.rows}
    assert report.exit_code == 1
    for does, says in errors.items():
        assert found[does].outcome == Outcome.ERROR, does
        assert says in found[does].sentence, does
        assert not found[does].infrastructure
        assert any("File " in line for line in found[does].evidence), does
    for does, says in fails.items():
        assert (found[does].outcome, says in found[does].sentence) == (Outcome.FAIL, True), does
    assert found["no latents"].outcome == Outcome.PASS
    judged = {(j.relation.value, j.bound.domain) for j in found["no latents"].judgements if j.bound and j.ok}
    assert {("exchange", "image"), ("control", "image")} <= judged
    assert {domain for relation, domain in judged if relation in ("exchange", "control")} == {"image"}


def runs_of(specs: list[RunSpec], folder: Path) -> list[Run]:
    with Pool(folder / "logs") as workers:
        events = list(workers.execute(specs, lambda spec: folder / spec.digest))
    return [event.run for event in events if isinstance(event, Finished)]


def test_a_load_that_raises_is_no_fault_of_the_machine_and_load_is_told_what_it_asks_for(
    wayward: Path, tmp_path: Path
) -> None:
    path = matrix(tmp_path, [{"flavour": flavour} for flavour in (3, 4, 13, 14)])
    _, graph = steps.prepare(path)
    candidates = [graph.specs[row.runs["candidate"]] for row in graph.rows]
    runs = runs_of([*candidates, graph.specs[graph.rows[0].runs["baseline"]]], tmp_path)
    found = {run.spec.options.get("flavour"): run for run in runs}
    assert [found[flavour].counters for flavour in (3, 4)] == [{"flavour": f, "told": 2} for f in (3, 4)]
    for flavour, says in ((13, "ValueError: no such flavour"), (14, "SystemExit: 3")):
        failure = found[flavour].failure
        assert failure is not None
        assert (failure.kind, failure.kind.infrastructure) == (FailureKind.RAISED, False)
        assert failure.message.startswith("wayward did not load: rank ")
        assert failure.message.endswith(says)
        assert "wayward_module.py" in failure.detail


def test_engines_share_processes_only_where_each_says_so_itself(wayward: Path, tmp_path: Path) -> None:
    _, graph = steps.prepare(matrix(tmp_path, [{"flavour": 3}, {"flavour": 4}, {"does": "right"}]))
    keys = [GroupKey.of(spec) for spec in graph.specs.values() if spec.world_size == 1]
    assert {key.process for key in keys} == {"fake", "shared"}
    assert len({key for key in keys if key.process == "shared"}) == 3  # by flavour

    class Heir(plugins.load("engines", "spatial")):  # type: ignore[misc]
        name = "heir"

    assert Heir.process_name() == "heir"
    ours = {name: plugins.load("engines", name).process_name() for name in ("diffusers", "spatial")}
    assert len({*ours.values()}) == 1


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("raise in limits", r"limits raised KeyError: 'no such size' \(.*wayward_module.py, line \d+\)"),
        ("number from limits", r"limits returned 7; return a text or None"),
    ],
)
def test_mistakes_in_class_methods_end_planning_and_name_engine_and_place(
    wayward: Path, tmp_path: Path, does: str, says: str
) -> None:
    with pytest.raises(UsageError, match=rf"^engine 'wayward' \(wayward_module\): {says}$"):
        steps.prepare(matrix(tmp_path, [{"does": does}]))


def test_a_preload_of_another_type_is_told_before_anything_starts(wayward: Path, tmp_path: Path) -> None:
    _, graph = steps.prepare(matrix(tmp_path, [{"does": "text from preload"}]))
    with pytest.raises(UsageError, match="preload returned 'numpy'; return a sequence of texts"):
        runs_of(list(graph.specs.values()), tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('packages = "torch"', r"has packages = 'torch'; write a tuple of texts"),
        ('packages = ("no-such-distribution",)', r"'no-such-distribution', which is not installed here"),
        ('load_time = ("flavor",)', r"has load_time 'flavor'; did you mean 'flavour'\?"),
        ("options = {'does': 3}", r"has options \{'does': 3\}; declare each as harness\.plugins\.Option"),
        ("raise SystemExit(2)", r"cannot be imported: SystemExit: 2"),
    ],
)
def test_mistakes_in_class_attributes_end_planning(wayward: Path, tmp_path: Path, line: str, says: str) -> None:
    source = WAYWARD.replace("    @classmethod\n", f"    {line}\n\n    @classmethod\n", 1)
    (wayward / "wayward_module.py").write_text(source, encoding="utf-8")
    with pytest.raises((UsageError, ConfigError), match=says):
        steps.prepare(matrix(tmp_path, [{"does": "right"}]))
