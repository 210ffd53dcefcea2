"""Fuzzing: a planted fault is found, shrunk, and reproduced from the file it leaves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, configuration, given, settings

from harness import plugins
from harness.errors import InfrastructureError, UsageError
from harness.execution import failures, pool
from harness.fuzz import search
from harness.fuzz.search import Found, Tally
from harness.fuzz.space import Space, check, read_options
from harness.fuzz.strategies import examples
from harness.matrix.coverage import CLASSES, met_by, sights
from harness.session.steps import prepare
from harness.types import Outcome

FAKE = Space("fake", "fake")


@pytest.fixture(autouse=True)
def _hypothesis_goes_home() -> Iterator[None]:
    yield
    configuration.set_hypothesis_home_dir(None)


def hunt(space: Space, out: Path, seed: int = 1) -> Found:
    """Fuzz until something is found, which is soon."""
    tally = Tally(60.0)
    search.fuzz(space, out, tally, seed)
    assert tally.found is not None
    return tally.found


def test_a_fault_is_shrunk_to_what_it_takes(tmp_path: Path) -> None:
    """This one rolls the last shard along the axis by a token: it takes two tokens there to be seen."""
    found = hunt(Space("fake", "fake", fault="off-by-one-token", sequences=0), tmp_path)
    _, graph = prepare(search.write(found, tmp_path, "a test"))
    (row,) = graph.rows
    assert row.plan is not None
    assert row.plan.shard_tokens == (2, 2)
    assert row.case.size.tokens == 4
    assert (found.outcome, found.cause) == (Outcome.FAIL, "split")


def test_options_are_drawn_from_the_values_asked_for() -> None:
    options = read_options("diffusers-cp", ["mask=whole,split", "anything=true"])
    assert options == (("mask", ("whole", "split")), ("anything", (True,)))
    drawn: set[str] = set()

    @settings(max_examples=40, database=None, derandomize=True)
    @given(examples(Space("diffusers-cp", "nano", options=options), plugins.load("engines", "diffusers-cp")))
    def draw(text: str) -> None:
        (variant,) = tomllib.loads(text)["variant"]
        assert (variant["axis"], variant["options"]["anything"]) == ("none", True)
        drawn.add(variant["options"]["mask"])

    draw()
    assert drawn == {"whole", "split"}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("mask=spilt", "did you mean 'split'"),
        ("maks=split", "did you mean 'mask'"),
        ("anything=1", "write true or false"),
        ("mask", "write mask=VALUE,...; one of whole, split"),
    ],
)
def test_options_that_an_engine_has_not_are_refused(word: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        read_options("diffusers-cp", [word])


def test_another_crash_is_another_bug() -> None:
    def found(says: str, outcome: Outcome = Outcome.ERROR) -> Found:
        return Found("", outcome, "crash", f"48x32/fake-u2: {says}", 1)

    assert found("rank 1 raised ValueError: 12 of 13").kind == found("rank 0 raised ValueError: 7 of 9").kind
    assert found("rank 1 raised ValueError: 12").kind != found("rank 1 raised KeyError: 12").kind
    assert found("61.2 dB", Outcome.FAIL).kind == found("worst in a box", Outcome.FAIL).kind


def test_a_seed_draws_the_same_again(tmp_path: Path) -> None:
    texts: list[list[int]] = []
    for _ in range(2):
        seen: list[int] = []

        def look(tally: Tally, seen: list[int] = seen) -> None:
            seen.append(tally.skips)
            if len(seen) == 10:
                tally.seconds = 0.0  # the time is over

        search.fuzz(FAKE, tmp_path, Tally(60.0), 7, look)
        texts.append(seen)
    assert len(texts[0]) == 10
    assert texts[0] == texts[1]


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


def test_hypothesis_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'sp-harness\[fuzz\]'"):
        check(FAKE)


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
    fixed = ("dtype: bfloat16", "attention: another", "graph", "steps: 1", "second request: other", "second request: c")
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


def test_an_example_of_an_environment_names_it_and_its_command_the_interpreter(tmp_path: Path) -> None:
    space = Space("fake", "fake", environment="new", python=("fake@new=/a/python",))

    @settings(max_examples=3, database=None, suppress_health_check=list(HealthCheck))
    @given(examples(space, plugins.load("engines", "fake")))
    def drawn(text: str) -> None:
        assert 'environment = "new"' in text

    drawn()
    file = search.write(Found("text", Outcome.FAIL, None, "a row", 1), tmp_path, "fuzz", space.python)
    assert f"# Run it: sp-harness run {file} --python fake@new=/a/python\n" in file.read_text()
