"""Executors by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.execution import executor
from harness.execution.pool import Pool


def test_this_machine_by_default(tmp_path: Path) -> None:
    with executor.maker()(tmp_path / "logs") as local:
        assert isinstance(local, Pool)


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
        executor.maker(name, address)
    assert str(error.value) == words


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.execution.ray.cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ray is not installed; pip install 'sp-harness\[ray\]'"):
        executor.maker("ray")
