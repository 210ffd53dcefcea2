"""A bench on which runs lie on disk without a worker group: the fake engine draws them in this process."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from harness import codec
from harness.engines.fake import FakeEngine
from harness.execution import forkserver
from harness.execution.forkserver import Forkserver
from harness.execution.group import recorded
from harness.goldens import approve
from harness.plugins import Drawing, Worker
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Failure, FailureKind, GoldenPolicy, Report, Run, RunSpec

# A shell starts what it runs in the background with Ctrl-C ignored, and every process a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Test files run side by side, a core for each; torch would take all cores for one of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MATRIX = """
schema = 1
name = "bench"
model = "fake"
steps = 2
golden_store = "../golden"

[[case]]
size = ["128x128", "144x144"]
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["auto", "h", "w"]
"""
"""On two ranks 128x128 has no pads at all and 144x144 has 32 surplus pads."""

Edit = Callable[[RunSpec, Drawing], None]


@dataclass(frozen=True)
class Bench:
    """A folder that stands for a project: ``matrices/``, ``golden/`` and ``reports/``."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "golden"

    def matrix_file(self, text: str = MATRIX) -> Path:
        path = self.root / "matrices" / "bench.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def plan(self, text: str = MATRIX, golden: GoldenPolicy = "required") -> RunFolder:
        """Make a run folder in which nothing is drawn yet."""
        matrix, graph = steps.prepare(self.matrix_file(text))
        return RunFolder.create(self.root / "reports", matrix, graph, golden)

    def drawn(self, text: str = MATRIX, golden: GoldenPolicy = "required", edit: Edit | None = None) -> RunFolder:
        """Make a run folder in which everything is drawn."""
        folder = self.plan(text, golden)
        self.draw(folder, folder.plan.specs.values(), edit)
        return folder

    def draw(self, folder: RunFolder, specs: Iterable[RunSpec], edit: Edit | None = None) -> None:
        """Draw runs as a worker would leave them; ``edit`` may change a drawing before it is written."""
        for spec in specs:
            engine = FakeEngine()
            engine.load(Worker(0, spec.world_size, "cpu", spec.model_path, spec.case.dtype))
            drawing = engine.draw(spec)
            assert drawing is not None
            if edit:
                edit(spec, drawing)
            _write(folder.folder_of(spec), spec, drawing)

    def fail(self, folder: RunFolder, spec: RunSpec, kind: FailureKind = FailureKind.RAISED) -> None:
        """Leave a run without a picture."""
        failure = Failure(kind, f"the engine {kind.value}", 1, "Traceback ...")
        outcome: Any = "timeout" if kind is FailureKind.HUNG else "error"
        codec.write_json(folder.folder_of(spec) / "run.json", Run(spec, outcome, failure=failure))

    def approved(self, text: str = MATRIX, edit: Edit | None = None) -> Report:
        """Approve goldens for every case of a matrix; the report of the run that they come from."""
        folder = self.drawn(text, edit=edit)
        report = steps.conclude(folder)
        for change in approve.changes(folder, report):
            approve.approve(folder, report, change, by="the bench")
        return report


def _write(folder: Path, spec: RunSpec, drawing: Drawing) -> None:
    folder.mkdir(parents=True)
    names = tuple(f"image-{index}.png" for index in range(len(drawing.images)))
    for name, image in zip(names, drawing.images, strict=True):
        image.save(folder / name, compress_level=1)
    arrays = {"latents": drawing.latents, "trajectory": drawing.trajectory}
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / "latents.safetensors")
    versions = {"python": "3.11.9", "numpy": np.__version__}
    run = Run(spec, "ok", names, "latents.safetensors", times=drawing.times, wall_s=0.5, versions=versions)
    codec.write_json(folder / "run.json", replace(run, files=recorded(folder, run.file_names)))


@pytest.fixture(scope="session", autouse=True)
def _left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A place for what is left by processes that tests kill; pytest removes it one day."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("left")))
        patch.setenv("RAY_TMPDIR", "/tmp")  # the path of a socket must be short
        patch.setattr(tempfile, "tempdir", None)  # found anew
        yield


@pytest.fixture(scope="session", autouse=True)
def _forkserver(_left: None) -> Iterator[None]:
    """Keep the forkserver of the session's environment while tests change theirs: importing torch takes seconds."""
    here, place = Forkserver.here, forkserver._place()
    kept: Forkserver | None = None

    def keep(log: Path, python: str = "") -> Forkserver:
        nonlocal kept
        known, is_changed = Forkserver._known, forkserver._place() != place
        if python or (is_changed and known.get("") is not kept):
            return here(log, python)
        if is_changed:
            known.pop("", None)
            return here(log)
        if (other := known.pop("", kept)) is not kept and other is not None:
            other.close()
        if kept is not None:
            known[""] = kept
        kept = here(log)
        return kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forkserver, "here", keep)
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def repaint() -> Callable[..., Edit]:
    """An edit that changes the runs of one role: ``repaint("candidate", by=0.5)``."""

    def make(role: str = "", by: float = 0.5, picture: bool = True) -> Edit:
        def edit(spec: RunSpec, drawing: Drawing) -> None:
            if role in ("", _role(spec)):
                drawing.trajectory = drawing.trajectory + np.float32(by)
                drawing.latents = drawing.trajectory[-1]
                if picture:
                    drawing.images = [Image.fromarray(255 - np.asarray(image)) for image in drawing.images]

        return edit

    return make


def _role(spec: RunSpec) -> str:
    if spec.world_size > 1:
        return "candidate"
    if spec.plan is not None:
        return "control"
    return "baseline" if spec.image_pad_tokens is None else "replay"
