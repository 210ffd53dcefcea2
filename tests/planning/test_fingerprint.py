"""Digests of code and versions: what makes a recorded run stale."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

import harness
from harness.engines.fake import FakeEngine
from harness.planning import fingerprint
from harness.planning.fingerprint import WORKER_SOURCES, _python_files, source_digest, source_of
from harness.plugins import build


def test_the_source_of_what_runs_in_a_rank_counts() -> None:
    numpy, pillow = ((package, build.version(package)) for package in ("numpy", "pillow"))
    assert source_digest((numpy,)) != source_digest((numpy, pillow))
    assert source_of("fake", "none") == source_digest((numpy,))
    assert FakeEngine.packages == ("numpy",)


def test_the_interpreter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_digest(())
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert source_digest.__wrapped__(()) != before


@pytest.mark.parametrize("name", WORKER_SOURCES)
def test_every_source_that_is_named_is_there(name: str) -> None:
    """A name that no longer fits would count for nothing, and say nothing."""
    assert list(_python_files(Path(harness.__file__).parent / name))


def test_a_changed_file_is_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engines").mkdir()
    source = tmp_path / "engines" / "own.py"
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "planning" / "fingerprint.py"))
    digests = []
    for text in ("x = 1\n", "x = 2\n"):
        source.write_text(text)
        digests.append(source_digest.__wrapped__(()))
    (tmp_path / "console.py").write_text("beside what a rank runs\n")
    digests.append(source_digest.__wrapped__(()))
    assert digests[0] != digests[1] == digests[2]
