"""Fuzzing: a planted fault is found, shrunk, and reproduced from the file it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, configuration, given, settings
from typer.testing import CliRunner

from harness import plugins
from harness.cli import fuzz
from harness.cli.app import app
from harness.errors import InfrastructureError, UsageError
from harness.execution import failures, pool
from harness.fuzz import search
from harness.fuzz.search import Found, Tally
from harness.fuzz.space import Space, check
from harness.fuzz.strategies import examples
from harness.matrix.coverage import CLASSES, met_by, sights
from harness.matrix.loader import read_matrix
from harness.session.steps import prepare
from harness.types import Matrix, Outcome

FAKE = Space("fake", "fake")


@pytest.fixture(autouse=True)
def _hypothesis_goes_home() -> Iterator[None]:
    yield
    configuration.set_hypothesis_home_dir(None)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def hunt(space: Space, out: Path, seed: int = 1) -> Found:
    """Fuzz until something is found, which is soon."""
    tally = Tally(60.0)
    search.fuzz(space, out, tally, seed)
    assert tally.found is not None
    return tally.found


def matrix_of(found: Found, folder: Path) -> Matrix:
    return read_matrix(search.write(found, folder, "a test"))


def test_a_planted_fault_is_found_shrunk_and_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("fuzz", "--engine", "fake", "--fault", "seam", "--seed", 1, "--minutes", 1, "--out", "found")
    assert done.exit_code == 1
    (file,) = Path("found").glob("*.toml")
    matrix = read_matrix(file)
    (case,) = matrix.cases
    (variant,) = matrix.variants
    assert case.size.tokens == 2  # one for each rank
    assert (case.num_images, case.guidance_scale, case.sequence, len(case.prompts[0].split())) == (1, 0, None, 1)
    assert (variant.ulysses, variant.ring, variant.fault) == (2, 1, "seam")
    output = " ".join(done.stdout.split())
    assert f"run it with: sp-harness run {file}" in output
    assert "fails by itself too" in output
    again = invoke("run", file, "--out", "reports")
    assert again.exit_code == 1
    assert "1 fail" in again.stdout
    # Nothing else is left: no work in progress, and hypothesis keeps its files elsewhere.
    assert {path.suffix for path in Path("found").iterdir()} == {".toml", ""}
    assert not [path for path in (*tmp_path.iterdir(), *Path("found").iterdir()) if path.name.startswith(".")]


def test_a_fault_is_shrunk_to_what_it_takes(tmp_path: Path) -> None:
    """This one rolls the last shard along the axis by a token: it takes two tokens there to be seen."""
    found = hunt(Space("fake", "fake", fault="off-by-one-token", sequences=0), tmp_path)
    _, graph = prepare(search.write(found, tmp_path, "a test"))
    (row,) = graph.rows
    assert row.plan is not None
    assert row.plan.shard_tokens == (2, 2)
    assert row.case.size.tokens == 4
    assert (found.outcome, found.cause) == (Outcome.FAIL, "split")


def test_a_seed_draws_the_same_again(tmp_path: Path) -> None:
    texts: list[list[int]] = []
    for _ in range(2):
        seen: list[int] = []
        search.fuzz(FAKE, tmp_path, Tally(1.5), 7, lambda tally, seen=seen: seen.append(tally.skips))
        texts.append(seen)
    shorter = min(map(len, texts))
    assert shorter > 3
    assert texts[0][:shorter] == texts[1][:shorter]


def test_a_correct_engine_passes_until_the_time_is_over(tmp_path: Path) -> None:
    done = invoke("fuzz", "--engine", "fake", "--minutes", 0.04, "--seed", 3, "--out", tmp_path, "--max-ranks", 4)
    assert done.exit_code == 0
    assert "no failure" in done.stdout
    summary = next(line for line in done.stdout.splitlines() if "could not be run" in line)
    assert int(summary.split()[0]) > 5
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_not_the_engine(tmp_path: Path) -> None:
    space = Space("fake", "fake", fault="out-of-memory")
    tally = Tally(60.0)
    with pytest.raises(InfrastructureError, match="out of memory"):
        search.fuzz(space, tmp_path, tally, 1)
    assert tally.found is None
    assert InfrastructureError.exit_code == 3


def test_an_engine_that_raises_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "PEER_GRACE_S", 0.1)
    found = hunt(Space("fake", "fake", fault="crash", max_tokens=2, sequences=0), tmp_path)
    assert (found.outcome, found.cause) == (Outcome.ERROR, "crash")
    assert "the fake engine was told to crash" in found.sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "fak"], "did you mean 'fake'?"),
        (["--engine", "fake", "--fault", "seem"], "did you mean 'seam'?"),
        (["--engine", "fake", "--max-ranks", 1], "a split takes at least 2 ranks"),
        (["--engine", "fake", "--minutes", 0], "write a number above 0"),
        (["--engine", "fake", "--model", "nano"], "none of 100 examples can be run"),
    ],
)
def test_what_cannot_be_fuzzed_is_said(arguments: list[object], message: str, tmp_path: Path) -> None:
    done = invoke("fuzz", *arguments, "--out", tmp_path)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_hypothesis_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'sp-harness\[fuzz\]'"):
        check(FAKE)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), InfrastructureError("no memory left"), None], ids=repr)
def test_what_was_found_is_written_however_the_search_ends(
    end: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tomli_w.dumps(
        {
            "model": "fake",
            "golden": "off",
            "case": [{"size": "32x16", "prompt": "x"}],
            "variant": [{"engine": "fake", "ulysses": 2}],
        }
    )

    def flaky(space: Space, out: Path, tally: Tally, seed: int, on_example: Any) -> None:
        tally.found = Found(text, Outcome.FAIL, "split", "32x16/fake-u2-auto: damaged", 2)
        if end:
            raise end

    monkeypatch.setattr(search, "fuzz", flaky)
    if end:
        with pytest.raises(type(end)):
            fuzz.search(FAKE, tmp_path, 1.0, 5)
    else:
        assert fuzz.search(FAKE, tmp_path, 1.0, 5) == 1
        assert "passes by itself" in capsys.readouterr().out
    (file,) = tmp_path.glob("fuzz-*.toml")
    head, _, body = file.read_text().partition("model = ")
    assert f"model = {body}" == text
    assert [line.startswith("# ") for line in head.splitlines()] == [True] * 3
    assert "--seed 5" in head
    assert "damaged" in head


def test_while_shrinking_another_bug_is_none(tmp_path: Path) -> None:
    tally = Tally(60.0)
    bench = search._Bench(tmp_path, pool.Pool(tmp_path / "logs"), tally, lambda tally: None)
    first = Found("long text", Outcome.FAIL, "split", "", 8)
    assert bench._keep(first)
    assert not bench._keep(Found("x", Outcome.ERROR, "crash", "", 1))
    assert tally.found is first
    assert bench._keep(Found("longer text", Outcome.FAIL, "split", "", 8))
    assert tally.found is first
    simpler = Found("text", Outcome.FAIL, "split", "", 8)
    assert bench._keep(simpler)
    assert tally.found is simpler
    assert tally.left_s > 100  # shrinking has time of its own


def test_ctrl_c_ends_with_a_summary(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from harness.cli.app import main; main()", "fuzz", "--engine", "fake"]
    with subprocess.Popen(
        [*command, "--out", tmp_path], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("sp-harness fuzz --engine fake --model fake --seed ")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 130
    assert "examples in" in rest
    assert list(tmp_path.iterdir()) == []


def test_examples_are_matrices_of_every_kind(tmp_path: Path) -> None:
    space = Space("spatial", "nano", max_ranks=6, sequences=4)
    path = tmp_path / "example.toml"
    met: set[str] = set()

    @settings(max_examples=150, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(examples(space, plugins.load("engines", "spatial")))
    def look(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        matrix, graph = prepare(path)
        assert len(matrix.variants) == 1
        assert all(case.size.tokens <= space.max_tokens for case in matrix.cases)
        assert all(2 <= row.variant.degree <= space.max_ranks for row in graph.rows)
        for sight in sights(graph):
            met.update(met_by(sight))

    look()
    rare = ("axis won by", "pads: none", "caption: at")  # on few sizes or prompts only
    fixed = ("dtype: bfloat16", "attention: another", "steps: 1", "second request: other", "second request: captions")
    assert {name for name in CLASSES if not name.startswith((*rare, *fixed))} <= met


def test_spatial_a_gather_that_keeps_its_pads_takes_uneven_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "num_slots", lambda device: 1)  # processes that load torch are what takes time here
    space = Space("spatial", "nano", 2, "gather-uncropped", max_side_tokens=6, sequences=0)
    found = hunt(space, tmp_path)
    _, graph = prepare(search.write(found, tmp_path, "a test"))
    (row,) = graph.rows
    assert row.plan is not None
    assert row.plan.shard_tokens == (2, 1)
    assert (found.outcome, found.cause) == (Outcome.FAIL, "cut/gather")
    assert row.case.size.tokens == 3
