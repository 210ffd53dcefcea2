"""Interpreters of other environments: this one by way of a script, with distributions of its own in front."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MakePython = Callable[..., Path]


@pytest.fixture
def make_python(tmp_path: Path) -> MakePython:
    """Make an interpreter; ``flags`` are its own, ``versions`` those of distributions installed in it."""

    def make(name: str = "python", flags: str = "", **versions: str) -> Path:
        site = tmp_path / f"site of {name}"
        for package, version in versions.items():
            info = site / f"{package}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        python = tmp_path / name
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" {flags} "$@"\n')
        python.chmod(0o755)
        return python

    return make


@pytest.fixture(autouse=True)
def _no_environments_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
