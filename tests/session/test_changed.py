"""Rows that changed files can touch, in a repository that is made up."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.matrix.loader import read_matrix
from harness.session import changed
from harness.types import Matrix
from tests.command_line import CASE, HEAD, OFF, VARIANT, cli

__all__ = ["cli"]
TEXT = HEAD + 'golden_store = "golden"\n' + CASE + CASE.replace("128x128", "144x144") + VARIANT
SMALL, LARGE = "128x128/fake-u2-h", "144x144/fake-u2-h"


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a matrix of two rows, committed as ``first``."""
    (tmp_path / "m.toml").write_text(TEXT)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "first")
    return tmp_path


@pytest.fixture
def matrix(repository: Path) -> Matrix:
    return read_matrix(repository / "m.toml")


def test_nothing_changed_touches_nothing(matrix: Matrix) -> None:
    assert changed.since(matrix, "first") == {}


def test_of_the_matrix_file_only_rows_that_are_new_or_other(repository: Path) -> None:
    (repository / "m.toml").write_text(TEXT.replace('"144x144"', '"160x160"'))
    assert list(changed.since(read_matrix(repository / "m.toml"), "first")) == ["160x160/fake-u2-h"]
    (repository / "m.toml").write_text(TEXT.replace("waves", "other waves", 1))
    reasons = changed.since(read_matrix(repository / "m.toml"), "first")
    assert reasons == {SMALL: "m.toml asks for it, or asks for it otherwise"}
    git(repository, "commit", "-am", "second")
    assert changed.since(read_matrix(repository / "m.toml"), "first") == reasons, "committed or not"
    assert changed.since(read_matrix(repository / "m.toml"), "HEAD") == {}


def test_of_a_matrix_that_was_not_there_or_had_a_mistake_every_row(repository: Path) -> None:
    other = repository / "other.toml"
    other.write_text(TEXT)
    assert list(changed.since(read_matrix(other), "first")) == [SMALL, LARGE]


def test_a_golden_touches_its_case(repository: Path, matrix: Matrix) -> None:
    place = Path(matrix.golden_store) / "fake" / "cpu-float32" / matrix.cases[1].key
    place.mkdir(parents=True)
    (place / "image.png").write_bytes(b"")
    assert changed.since(matrix, "first") == {LARGE: "image.png is part of its golden"}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("engines/fake.py", "fake.py is of engine fake"),
        ("engines/_cache.py", "_cache.py takes part in every row"),
        ("engines/spatial.py", None),
        ("spatial/ulysses.py", "ulysses.py takes part in every row"),
        ("judging/judge.py", "judge.py takes part in every row"),
        ("faults/gather_swapped.py", None),
        ("reporters/html.py", None),
    ],
)
def test_of_this_package_what_draws_measures_or_judges(matrix: Matrix, file: str, reason: str | None) -> None:
    found = changed.touched(matrix, [changed.PACKAGE / file])
    assert found == (dict.fromkeys([SMALL, LARGE], reason) if reason else {})


def test_a_planted_bug_touches_its_rows(matrix: Matrix) -> None:
    faulty = tuple(replace(variant, fault="swapped-ranks") for variant in matrix.variants)
    pairs = tuple((case, faulty[0].label) for case, _ in matrix.pairs[:1])
    planted = replace(matrix, variants=faulty, pairs=pairs)
    assert len(changed.touched(planted, [changed.FAULTS / "swapped_ranks.py"])) == 1


def test_the_source_of_an_engine_elsewhere_touches_its_rows(
    repository: Path, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "_sources", lambda engine: (repository / "engine",))
    (repository / "engine").mkdir()
    (repository / "engine" / "split.py").write_text("")
    (repository / "README.md").write_text("")
    assert changed.since(matrix, "first") == dict.fromkeys([SMALL, LARGE], "split.py is of engine fake")


def test_what_git_does_not_know(repository: Path, matrix: Matrix, tmp_path_factory: Any) -> None:
    with pytest.raises(UsageError, match=r"--changed-since: git merge-base .*nowhere"):
        changed.since(matrix, "nowhere")
    outside = tmp_path_factory.mktemp("outside") / "m.toml"
    outside.write_text(TEXT)
    with pytest.raises(UsageError, match=r"git rev-parse .*not a git repository"):
        changed.since(read_matrix(outside), "first")


def test_a_run_draws_what_is_touched_and_says_why(cli: Any, repository: Path) -> None:
    text = TEXT.replace(HEAD, HEAD + OFF)
    (repository / "m.toml").write_text(text)
    git(repository, "commit", "-am", "goldens off")
    command = ("run", repository / "m.toml", "--changed-since", "HEAD", "--out", repository / "out")
    done = cli(*command)
    assert (done.code, done.out) == (0, "nothing that changed since HEAD can touch a row; nothing is drawn\n")
    assert not (repository / "out").exists()
    (repository / "m.toml").write_text(text.replace("waves", "other waves", 1))
    done = cli(*command)
    assert done.code == 0
    assert done.out.startswith(
        "1 of 2 rows can be touched by what changed since HEAD:\n"
        f"  m.toml asks for it, or asks for it otherwise: {SMALL}\n"
    )
    assert "1 pass" in done.out
