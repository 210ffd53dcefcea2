"""Golden stores at URLs, and a cache for each test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.goldens.open_store import open_store

from .remote import Remote


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no store that is still open."""
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    open_store.cache_clear()
    return tmp_path / "cache" / "goldens"


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/goldens" if request.param == "memory" else f"file://{tmp_path}/bucket/goldens"


@pytest.fixture
def remote(bench: Any, url: str) -> Remote:
    return Remote(bench, url)
