from __future__ import annotations

from typing import Any

from harness.cli.ls import ls
from tests.command_line import Cli


def test_plugins(cli: Cli) -> None:
    done = cli("ls")
    assert done.code == 0
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["engines", "metrics", "faults", "reporters"]


def test_rows_of_a_matrix(cli: Cli, fakes: Any) -> None:
    done = cli("ls", fakes.matrix)
    assert done.code == 0
    assert "128x128/fake-u2-auto  h 4+4" in done.out
    assert done.out.splitlines()[-1] == "fakes: 6 rows, 12 runs"


def test_runs_in_a_folder(cli: Cli, fakes: Any, bench: Any, capsys: Any) -> None:
    assert cli("ls", fakes.run.parent).out == f"{fakes.run}  exit code 0, 6 pass\n"
    folder = bench.plan()
    ls(folder.path.parent)
    assert capsys.readouterr().out == f"{folder.path}  not judged\n"
