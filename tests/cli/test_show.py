"""``show``: the report of a run, or of one row, in a browser."""

from __future__ import annotations

import webbrowser
from typing import Any

import pytest

from tests.command_line import Cli


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not found.append(url))  # type: ignore[func-returns-value]
    return found


def test_a_page_is_opened_where_there_is_a_screen(
    cli: Cli, fakes: Any, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert (cli("show", fakes.run).code, cli("show", fakes.run, "144x144/fake-u2-w").code) == (0, 0)
    row = fakes.run / "rows" / "144x144_fake-u2-w.html"
    assert row.is_file()
    assert opened == [path.resolve().as_uri() for path in (fakes.run / "index.html", row)]
    assert cli("show", fakes.run, "--path").out == f"{fakes.run / 'index.html'}\n"
    assert len(opened) == 2


def test_without_a_screen_its_path_is_printed(
    cli: Cli, fakes: Any, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = cli("show", fakes.run, "144x144/fake-u2-w")
    assert done.out == f"{fakes.run / 'rows' / '144x144_fake-u2-w.html'}\n"
    assert opened == []


def test_what_is_not_there(cli: Cli, fakes: Any, bench: Any) -> None:
    done = cli("show", fakes.run, "144x144/fake-u2-v")
    assert (done.code, "did you mean '144x144/fake-u2-w'?" in done.err) == (2, True)
    folder = bench.plan()
    done = cli("show", folder.path)
    assert (done.code, f"sp-harness report {folder.path}" in done.err) == (2, True)
