"""``matrix cover``: what is met, what is missing, and what to add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.matrix.coverage import CLASSES
from tests.command_line import Cli

MATRICES = Path(__file__).resolve().parents[2] / "matrices"

SMALL = """
model = "fake"
golden = "off"
[[case]]
size = "128x128"
prompt = "a red ball"
[[variant]]
engine = "fake"
ulysses = 2
axis = ["auto", "w"]
"""


def test_exit_code_and_table(cli: Cli, bench: Any) -> None:
    done = cli("matrix", "cover", bench.matrix_file(SMALL))
    assert done.code == 1
    assert f"9 of {len(CLASSES)} classes are met" in done.out
    assert "not met" in done.out
    assert "[[case]]" in done.out
    whole = cli("matrix", "cover", MATRICES / "pr.toml", MATRICES / "features.toml")
    assert whole.code == 0
    assert f"{len(CLASSES)} of {len(CLASSES)} classes are met" in whole.out
    assert "not met" not in whole.out
    assert "features: " in whole.out


def test_json(cli: Cli, bench: Any) -> None:
    done = cli("matrix", "cover", bench.matrix_file(SMALL), "--json")
    document = json.loads(done.out)
    assert done.code == 1
    tie = next(entry for entry in document["classes"] if entry["class"] == "axis won by: tie")
    assert tie == {"class": "axis won by: tie", "count": 1, "rows": ["128x128/fake-u2-auto"]}
    assert "orientation: portrait" in document["missing"]
    assert "[[case]]" in document["additions"]
