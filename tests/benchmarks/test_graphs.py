"""Recorded steps beside eager ones: two real ranks, every feature, nothing about times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "graphs.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    file = tmp_path_factory.mktemp("graphs") / "figures.json"
    command = [sys.executable, str(SCRIPT), "--size", "144x112", "--rounds", "1", "--steps", "3", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_every_feature_is_eagers_to_the_last_bit_also_when_memory_runs_out(figures):
    features = {line["feature"]: line["result"] for line in figures["equality"]}
    assert set(features.values()) == {"equal"}
    assert {"guidance, a mask", "ring", "exchange overlapped", "out of memory on one rank"} <= set(features)


def test_every_way_is_timed_beside_one_device(figures):
    ways = {line["way"]: line for line in figures["ways"]}
    assert {"one device", "spatial alone", "exact", "exact, graph", "aligned, graph"} <= set(ways)
    assert all(line["step_s"] > 0 and line["speed_up"] > 0 for line in ways.values())
    assert {way for way, line in ways.items() if line["equal"]} == {way for way in ways if "graph" in way}
