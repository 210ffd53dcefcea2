"""``engines``: what a variant of each may ask for."""

from __future__ import annotations

from harness import plugins
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
