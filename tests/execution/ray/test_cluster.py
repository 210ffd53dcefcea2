"""Which Ray cluster is meant, found out before ray is asked, which waits for minutes for one that is gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfrastructureError
from harness.execution.ray import cluster


@pytest.fixture(autouse=True)
def latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ray would have left the address of its last cluster."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "LATEST", tmp_path / "ray_current_cluster")
    return tmp_path / "ray_current_cluster"


@pytest.fixture
def alive() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def gone() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_cluster_that_answers_is_joined(alive: str, latest: Path) -> None:
    assert cluster._answering(alive) == alive
    assert cluster._answering(f"ray://{alive}") == f"ray://{alive}"
    latest.write_text(f"{alive}\n", encoding="utf-8")
    assert cluster._answering(None) is None  # ray finds it


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_named_cluster_that_does_not_answer_is_an_error(gone: str, scheme: str) -> None:
    with pytest.raises(InfrastructureError, match=f"the Ray cluster {scheme}{gone} cannot be reached: Connection"):
        cluster._answering(scheme + gone)


def test_so_is_one_named_in_the_environment(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", gone)
    with pytest.raises(InfrastructureError, match=gone):
        cluster._answering(None)


def test_the_last_one_is_forgotten_once_it_is_gone(gone: str, latest: Path) -> None:
    latest.write_text(gone, encoding="utf-8")
    assert cluster._answering(None) == "local"


@pytest.mark.parametrize("address", [None, "auto", "local", "nowhere"])
def test_what_is_no_address_is_left_to_ray(address: str | None) -> None:
    assert cluster._answering(address) == address
