"""Fuzz of what people and machines hand to the command line.

Every input has to end with a documented exit code and without a traceback; nothing is written outside of the folders
named, and recorded files that were whole stay whole. A few inputs are drawn of each kind; `make surfaces` draws 3,000
(`SP_SURFACES_INPUTS`). The seed is printed, and taken from `SP_SURFACES_SEED` where that is set.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.goldens.open_store import open_store
from harness.session import steps
from tests.cli import surfaces
from tests.cli.surfaces import Draw
from tests.command_line import CASE, HEAD, VARIANT

INPUTS = int(os.environ.get("SP_SURFACES_INPUTS", "20"))
SEED = int(os.environ.get("SP_SURFACES_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
APART_EVERY = 50
"""One in so many commands runs in a process of its own, which takes a second."""
KINDS = 4
READING = (["compare"], ["report"], ["table"], ["issue"], ["history"], ["explain"], ["pack"], ["merge"])

fuzzed = settings(
    max_examples=max(1, INPUTS // KINDS),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


class Place:
    """A folder with a project that is set up anew for each input, and all around it that no command may touch."""

    def __init__(self, root: Path, template: Path) -> None:
        self.root, self._template = root, template
        self.project = root / "project"
        self.out = root / "out"
        self.count = 0

    def reset(self) -> None:
        for folder in (self.project, self.out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._template, self.project)
        open_store.cache_clear()
        self.count += 1

    @property
    def run(self) -> Path:
        return next((self.project / "reports").iterdir())

    @property
    def matrix(self) -> Path:
        return self.project / "matrices" / "bench.toml"

    @property
    def is_apart(self) -> bool:
        return self.count % APART_EVERY == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Record and approve one run; the project's folder is copied for each input."""
    from tests.conftest import Bench

    root = tmp_path_factory.mktemp("surfaces")
    bench = Bench(root / "project")
    bench.root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SP_HARNESS_CACHE", str(root / "cache"))
        patch.setenv("HOME", str(root / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("harness.models._download", _no_hub)
        patch.chdir(root)
        bench.approved(HEAD + CASE + VARIANT)
        shutil.rmtree(bench.root / "reports")
        folder = bench.drawn(HEAD + CASE + VARIANT)
        folder.note("begun", missing=0)
        folder.note("finished", run="0", outcome="ok", wall_s=1.0)
        steps.write_reports(steps.conclude(folder), folder.path)
        for name in ("home", "work", "cache"):
            (root / name).mkdir(exist_ok=True)
        shutil.move(bench.root, root / "template")
        patch.chdir(root / "work")
        print(f"seed {SEED}")
        yield Place(root, root / "template")


def _no_hub(repo: str, revision: str | None) -> Path:
    from harness.errors import InfrastructureError

    raise InfrastructureError(f"model {repo!r} cannot be downloaded")


def obeys(place: Place, arguments: list[str], said: str, damaged: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Run a command, and hold it to all that every command keeps."""
    named = (place.root / "work" / argument for argument in arguments)  # such as the folder that pack makes
    free = (place.out, place.project, place.root / "cache", *named)
    around, recorded = surfaces.contents(place.root, free), surfaces.contents(place.project)
    said = f"seed {SEED}: {arguments} {said}"
    hypothesis.note(said)
    surfaces.check(surfaces.run(arguments, place.is_apart), said)
    assert surfaces.contents(place.root, free) == around, f"{said}: something was written elsewhere"
    surfaces.check_recorded(recorded, surfaces.contents(place.project), damaged)


@fuzzed
@hypothesis.seed(SEED)
@given(text=surfaces.matrices(), data=st.data())
def test_matrix_files(place: Place, text: bytes, data: Any) -> None:
    draw: Draw = data.draw
    place.reset()
    place.matrix.write_bytes(text)
    commands = [["ls"], ["matrix", "cover"], ["golden", "verify"]]
    if draw(st.integers(0, 9)) == 0 and surfaces.is_small(place.matrix):
        commands = [["run", "--out", str(place.out), "--no-explain"]]
    command = draw(st.sampled_from(commands))
    obeys(place, [*command, str(place.matrix)], repr(text)[:2000])


@fuzzed
@hypothesis.seed(SEED)
@given(data=st.data())
def test_run_folders(place: Place, data: Any) -> None:
    draw: Draw = data.draw
    place.reset()
    files = surfaces.files_of(place.run)
    damaged = set(draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)))
    said = "; ".join(surfaces.damage(draw, place.project, path) for path in sorted(damaged))
    command = draw(st.sampled_from([*READING, ["approve", "--yes"], ["ls"], ["run", "--resume"]]))
    target = place.run.parent if command == ["ls"] else place.run
    more = {"history": ["--out"], "merge": ["--out"], "pack": []}.get(command[0])
    options = [] if more is None else [*more, str(place.out / "new")]
    names = {str(path.relative_to(place.project)) for path in damaged}
    obeys(place, [*command, str(target), *options], said, names)


@fuzzed
@hypothesis.seed(SEED)
@given(data=st.data())
def test_goldens(place: Place, data: Any) -> None:
    draw: Draw = data.draw
    place.reset()
    files = surfaces.files_of(place.project / "golden")
    said = surfaces.damage(draw, place.project, draw(st.sampled_from(files)))
    command = draw(
        st.sampled_from([["compare", place.run], ["golden", "verify", place.matrix], ["approve", place.run, "--yes"]])
    )
    obeys(place, list(map(str, command)), said)


@fuzzed
@hypothesis.seed(SEED)
@given(data=st.data())
def test_command_lines(place: Place, data: Any) -> None:
    place.reset()
    around = (place.matrix, place.run, place.run.parent, place.out, place.project / "golden", place.run / "report.json")
    line = data.draw(surfaces.command_lines(tuple(map(str, around))))
    if line[:1] in (["run"], ["history"], ["merge"]):
        line += ["--out", str(place.out)]
    obeys(place, line, "")
