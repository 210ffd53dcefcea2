"""``engines``: what a variant of each may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import plugins
from harness.environments import table
from tests.command_line import Cli


def test_every_engine_is_listed_with_its_axes(cli: Cli) -> None:
    done = cli("engines")
    assert done.code == 0
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert set(lines) == set(plugins.names("engines"))
    assert "axes auto, h, w" in lines["spatial"]
    assert "axes none" in lines["diffusers-cp"]


def test_options_are_shown_with_values_default_and_help(cli: Cli) -> None:
    done = cli("engines", "show", "diffusers-cp")
    assert done.code == 0
    for name, option in plugins.load("engines", "diffusers-cp").options.items():
        (line,) = (line for line in done.out.splitlines() if line.startswith(f"option {name} "))
        assert option.values() in line
        assert (f"{str(option.default).lower()} by default" in line) is (option.default is not None)
        assert option.help in done.out


def test_a_wrong_name_is_answered_with_the_closest(cli: Cli) -> None:
    done = cli("engines", "show", "diffuser-cp")
    assert (done.code, "did you mean 'diffusers-cp'?" in done.err) == (2, True)


def test_environments_and_the_releases_that_can_be_set_up_are_shown(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    table.enter(table.user_file(), "sglang", "0.5.9", "/old/bin/python")
    shown = cli("engines", "show", "sglang").out
    assert "sglang@0.5.9: /old/bin/python\n" in shown
    assert "0.5.9 --cpu, 0.5.10.post1 --cpu, 0.5.12.post1 --cpu, 0.5.23 --cpu\n" in shown
    assert "this one\n" in cli("engines", "show", "spatial").out
