"""Engines under development: a checkout that is installed as such, its commit and its changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.planning.fingerprint import source_of
from harness.plugins import build

Say = Callable[[], str]


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder, installed in place, with an engine of a package."""
    root, site = tmp_path / "their checkout", tmp_path / "site"
    (root / "theirs").mkdir(parents=True)
    (root / "theirs" / "__init__.py").write_text("")
    source = "from harness.engines.fake import FakeEngine\nclass Theirs(FakeEngine):\n    name = 'theirs'\n"
    (root / "theirs" / "engine.py").write_text(source)
    (root / "theirs" / "kernels.py").write_text("SCALE = 1\n")
    info = site / "their_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[sp_harness.engines]\ntheirs = theirs.engine:Theirs\n", encoding="utf-8")
    origin = {"url": root.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    for place in (site, root):
        monkeypatch.syspath_prepend(place)
    return root


def git(root: Path, *arguments: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *author, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def seen() -> tuple[str, str]:
    """Version and digest, as another process would see them."""
    build._checkout.cache_clear()
    build._version.cache_clear()
    return build.version("their-engine"), source_of("theirs", "none")


def test_a_changed_engine_is_another_build_and_its_commit_is_named(checkout: Path) -> None:
    plain, before = seen()
    assert plain.startswith("1.0 (files ")
    kernels = checkout / "theirs" / "kernels.py"
    kernels.write_text("SCALE = 2\n")
    assert seen()[1] != before  # a file beside the engine's own

    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    commit = git(checkout, "rev-parse", "HEAD")[:12]
    clean, committed = seen()
    assert clean == f"1.0 (commit {commit})"
    found = [(clean, committed)]
    kernels.write_text("SCALE = 3\n")
    found.append(seen())
    (checkout / "theirs" / "new.py").write_text("")
    found.append(seen())
    assert all(version.startswith(f"1.0 (commit {commit}, changed ") for version, _ in found[1:])
    assert len({version for version, _ in found}) == len({digest for _, digest in found}) == 3
    (checkout / "notes.txt").write_text("no source")
    assert seen() == found[2]


def test_an_installed_release_is_its_version() -> None:
    assert build.version("numpy").count(".") >= 2
    assert "(" not in build.version("numpy")
