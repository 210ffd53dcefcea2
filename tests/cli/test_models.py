from __future__ import annotations

from pathlib import Path

from tests.command_line import Cli, one_line


def test_models_are_listed_and_built(cli: Cli, tmp_path: Path) -> None:
    assert cli("models", "ls").out.split() == ["fake", "z-image-random", "nano", "nano-random"]
    one_line(cli("models", "build", "nano-rand", "--to", tmp_path / "x"), "'nano-rand'", "did you mean 'nano-random'?")
