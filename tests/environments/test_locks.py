"""Lock files of engines' environments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import harness.engines

FOLDER = Path(harness.engines.__file__).parent / "environments"
LOCKS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_each_pins_the_engine_it_is_named_for_and_torch(lock: Path) -> None:
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", line) for line in lines)  # no local version, no address
    assert list(pins) == sorted(pins)
    assert {"torch", "numpy", "pillow", "safetensors"} <= set(pins)
    engine, _, version = lock.name.removesuffix("-cpu.txt").partition("-")
    assert pins[engine] == version
