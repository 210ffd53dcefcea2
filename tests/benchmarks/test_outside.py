"""The process that fills a GPU, on a stand-in for one: it takes what it is told to, in the pieces it can get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
GPU = """
import os
from types import SimpleNamespace

assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1", "torch's own allocator takes more than it is asked for"
MIB, uint8, free = 1 << 20, None, [4099 << 20]


def empty(size, dtype=None, device=None):
    whole = -(-size // (2 * MIB)) * 2 * MIB
    if size > 1 and whole > min(free[0], 700 * MIB):  # no larger piece is free
        raise RuntimeError("CUDA error: out of memory")
    free[0] -= whole if size > 1 else 0
    return SimpleNamespace(numel=lambda: size)


cuda = SimpleNamespace(device_count=lambda: 1, mem_get_info=lambda index: (free[0], 4099 * MIB))
"""


@pytest.fixture
def ballast(scripts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "torch.py").write_text(GPU, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    import _outside

    made = _outside.Ballast()
    yield made
    made.release()


def test_all_is_taken_but_what_is_to_be_left(ballast: Any) -> None:
    assert ballast.left(0) == 4099 * MIB
    assert ballast.fill(0, 2048 * MIB)[1] == pytest.approx(2048 * MIB, abs=2 * MIB)
    took, left = ballast.fill(0, 16 * MIB)
    # The driver hands out pieces of 2 MiB.
    assert left == pytest.approx(16 * MIB, abs=2 * MIB)
    assert took == pytest.approx(4099 * MIB - left, abs=2 * MIB * 10)
    assert ballast.left(0) == left
