from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.session import steps
from harness.types import Report
from tests.command_line import FAKES, Done, cli, invoke, only_run, write

__all__ = ["cli", "write"]


@dataclass(frozen=True)
class Fakes:
    """One run of six rows that pass, for all tests that only read it."""

    matrix: Path
    done: Done
    run: Path


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Fakes:
    folder = tmp_path_factory.mktemp("fakes")
    matrix = folder / "fakes.toml"
    matrix.write_text(FAKES)
    done = invoke("run", matrix, "--out", folder / "out")
    return Fakes(matrix, done, only_run(folder / "out"))


@pytest.fixture
def judged(bench: Any) -> Callable[..., tuple[Path, Report]]:
    """Draw a matrix in this process, judge it and write its reports."""

    def make(text: str, edit: Any = None) -> tuple[Path, Report]:
        folder = bench.drawn(text, "off", edit)
        report = steps.conclude(folder)
        steps.write_reports(report, folder.path)
        return folder.path, report

    return make
