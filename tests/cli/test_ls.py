from __future__ import annotations

import json
from typing import Any

import pytest

from harness import models, plugins
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


class TestJson:
    """What every listing prints exists for programs."""

    def printed(self, cli: Cli, *arguments: object) -> Any:
        done = cli(*arguments, "--json")
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)

    def test_plugins(self, cli: Cli) -> None:
        assert self.printed(cli, "ls") == {kind: plugins.names(kind) for kind in plugins.KINDS}

    def test_rows_and_runs(self, cli: Cli, fakes: Any) -> None:
        found = self.printed(cli, "ls", fakes.matrix)
        assert (found["matrix"], len(found["rows"]), found["runs"]) == ("fakes", 6, 12)
        plan = {"axis": "h", "shard_tokens": [4, 4]}
        assert {"row": "128x128/fake-u2-auto", "size": "128x128", "skip": None, "plan": plan} in found["rows"]
        runs = self.printed(cli, "ls", fakes.run.parent)
        assert runs == [{"path": str(fakes.run), "exit_code": 0, "outcomes": {"pass": 6}}]

    def test_tables(self, cli: Cli, fakes: Any) -> None:
        lines = self.printed(cli, "table", fakes.run)
        assert {line["axis"] for line in lines} == {"h", "w"}
        assert lines[0].keys() >= {"case", "pair", "exchange", "verdict"}

    @pytest.mark.parametrize(("group", "kind"), [("engines", "engines"), ("faults", "faults")])
    def test_all_of_a_kind(self, cli: Cli, group: str, kind: str) -> None:
        found = self.printed(cli, group, *(["ls"] if group == "faults" else []))
        names = list(found) if isinstance(found, dict) else [entry["name"] for entry in found]
        assert names == plugins.names(kind)

    def test_one_engine_and_models(self, cli: Cli) -> None:
        shown = self.printed(cli, "engines", "show", "cache-dit")
        assert shown["options"].keys() == plugins.load("engines", "cache-dit").options.keys()
        assert self.printed(cli, "models", "ls") == list(models.names())
