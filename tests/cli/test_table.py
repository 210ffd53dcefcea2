"""``table`` of a run, and of the same run packed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.command_line import Cli


def test_a_table_of_costs_and_a_run_made_small(cli: Cli, fakes: Any, tmp_path: Path) -> None:
    shown = cli("table", fakes.run)
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^144x144 +fake-u2 +h +aligned +5,4 +47 / 15 ", shown.out, re.MULTILINE)
    marked = cli("table", fakes.run, "--markdown")
    assert "| 144x144 | fake-u2 | h | aligned | 5,4 | 47 / 15 |" in marked.out
    packed = cli("pack", fakes.run, tmp_path / "small")
    assert packed.out.startswith(f"{tmp_path / 'small'}: 0 of ")
    assert cli("table", tmp_path / "small").out.splitlines()[2:-1] == shown.out.splitlines()[2:-1]
