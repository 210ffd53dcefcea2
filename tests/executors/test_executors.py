"""Executors by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import executors
from harness.errors import UsageError
from harness.pool import Pool


def test_this_machine_by_default(tmp_path: Path) -> None:
    with executors.maker()(tmp_path / "logs") as executor:
        assert isinstance(executor, Pool)


@pytest.mark.parametrize(
    ("name", "address", "words"),
    [
        ("rai", None, "--executor 'rai': did you mean 'ray'?"),
        ("slurm", None, "--executor 'slurm': known: local, ray"),
        ("local", "auto", "--ray-address names a Ray cluster; add --executor ray"),
    ],
)
def test_what_cannot_be_meant(name: str, address: str | None, words: str) -> None:
    with pytest.raises(UsageError) as error:
        executors.maker(name, address)
    assert str(error.value) == words


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.executors._cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ray is not installed; pip install 'sp-harness\[ray\]'"):
        executors.maker("ray")
