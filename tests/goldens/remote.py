"""A matrix whose goldens are at a URL, run again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fsspec
import pytest

from harness.goldens import approve, for_run
from harness.goldens.open_store import open_store
from harness.matrix.loader import read_matrix
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome, Report

MATRIX = """
schema = 1
name = "bench"
model = "fake"
steps = 2
golden_store = "{url}"
{pin}
[[case]]
size = {sizes}
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
"""
BOTH = '["128x128", "144x144"]'


@dataclass(frozen=True)
class Remote:
    """A project of the bench whose goldens are at a URL."""

    bench: Any
    url: str

    def text(self, pin: str | None = None, sizes: str = BOTH) -> str:
        return MATRIX.format(url=self.url, pin=f'golden_digest = "{pin}"' if pin else "", sizes=sizes)

    def run(self, pin: str | None = None, sizes: str = BOTH, **kwargs: Any) -> tuple[RunFolder, Report]:
        """Fetch, draw, judge and propose, as in a process of its own."""
        folder = self.drawn(pin, sizes, **kwargs)
        report = steps.conclude(folder)
        for_run.propose(folder, report)
        return folder, report

    def drawn(self, pin: str | None = None, sizes: str = BOTH, **kwargs: Any) -> RunFolder:
        open_store.cache_clear()
        text = self.text(pin, sizes)
        for_run.fetch(read_matrix(self.bench.matrix_file(text)))
        folder: RunFolder = self.bench.drawn(text, **kwargs)
        return folder

    def approve(self, folder: RunFolder, report: Report, *names: str) -> str:
        pending = approve.changes(folder, report, names)
        approve.check_known(folder, None)
        for change in pending:
            approve.approve(folder, report, change, by="a person")
        digest = approve.pin(folder)
        assert digest is not None
        return digest

    @property
    def fs(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[0]

    def files(self) -> dict[str, str]:
        """Name to path of everything in the store that ends so."""
        root = fsspec.core.url_to_fs(self.url)[1]
        return {path.rpartition(root)[2].strip("/"): path for path in self.fs.find(root)}


def go_offline(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> Any:
        raise TimeoutError("no route to host")

    for call in ("ls", "cat_file"):
        monkeypatch.setattr(type(remote.fs), call, offline)


def outcomes(report: Report) -> set[Outcome]:
    return {row.verdict.outcome for row in report.rows if row.verdict}
