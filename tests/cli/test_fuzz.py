"""``fuzz`` from its options to the file that reproduces a failure."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from hypothesis import configuration

from harness.cli import fuzz
from harness.errors import InfrastructureError
from harness.fuzz import search
from harness.fuzz.search import Found, Tally
from harness.fuzz.space import Space
from harness.matrix.loader import read_matrix
from harness.types import Outcome
from tests.command_line import Cli, one_line


@pytest.fixture(autouse=True)
def _hypothesis_goes_home() -> Iterator[None]:
    yield
    configuration.set_hypothesis_home_dir(None)


def test_a_planted_fault_is_found_shrunk_and_reproduced(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("fuzz", "--engine", "fake", "--fault", "seam", "--seed", 1, "--minutes", 1, "--out", "found")
    assert done.code == 1
    (file,) = Path("found").glob("*.toml")
    matrix = read_matrix(file)
    (case,) = matrix.cases
    (variant,) = matrix.variants
    assert case.size.tokens == 2  # one for each rank
    assert (case.num_images, case.guidance_scale, case.sequence, len(case.prompts[0].split())) == (1, 0, None, 1)
    assert (variant.ulysses, variant.ring, variant.fault) == (2, 1, "seam")
    output = " ".join(done.out.split())
    assert f"run it with: sp-harness run {file}" in output
    assert "fails by itself too" in output
    again = cli("run", file, "--out", "reports")
    assert again.code == 1
    assert "1 fail" in again.out
    # Nothing else is left: no work in progress, and hypothesis keeps its files elsewhere.
    assert {path.suffix for path in Path("found").iterdir()} == {".toml", ""}
    assert not [path for path in (*tmp_path.iterdir(), *Path("found").iterdir()) if path.name.startswith(".")]


def test_a_correct_engine_passes_until_the_time_is_over(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(time.monotonic(), 0.1)  # a clock that goes on when it is read
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    done = cli("fuzz", "--engine", "fake", "--minutes", 0.04, "--seed", 3, "--out", tmp_path, "--max-ranks", 4)
    assert done.code == 0
    assert "no failure" in done.out
    summary = next(line for line in done.out.splitlines() if "could not be run" in line)
    assert int(summary.split()[0]) > 5
    assert list(tmp_path.iterdir()) == []


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
def test_what_cannot_be_fuzzed_is_said(cli: Cli, arguments: list[object], message: str, tmp_path: Path) -> None:
    one_line(cli("fuzz", *arguments, "--out", tmp_path), message)


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
            fuzz.search(Space("fake", "fake"), tmp_path, 1.0, 5)
    else:
        assert fuzz.search(Space("fake", "fake"), tmp_path, 1.0, 5) == 1
        assert "passes by itself" in capsys.readouterr().out
    (file,) = tmp_path.glob("fuzz-*.toml")
    head, _, body = file.read_text().partition("model = ")
    assert f"model = {body}" == text
    assert [line.startswith("# ") for line in head.splitlines()] == [True] * 3
    assert "--seed 5" in head
    assert "damaged" in head


def test_ctrl_c_ends_with_a_summary(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "fuzz", "--engine", "fake"]
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
