"""The command line as a whole: its help, what it imports, how it ends."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from harness import __version__
from harness import cli as cli_package
from harness.cli.app import app
from tests.command_line import ONE_ROW, Cli, Write, only_run

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "numpy", "pandas", "skimage"}


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command with the groups above it."""
    for name, command in group.commands.items():
        yield from commands(command, *path, name) if hasattr(command, "commands") else [(*path, name)]


COMMANDS = list(commands(get_command(app)))


def test_every_command_or_group_is_one_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(cli_package.__path__) if not module.name.startswith("_")}
    assert files - {"app", "console"} == {path[0] for path in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_shows_an_example(cli: Cli, command: tuple[str, ...]) -> None:
    done = cli(*command, "--help")
    assert (done.code, done.err) == (0, "")
    examples = " ".join(done.out.split("Example", 1)[1].split())
    assert f"sp-harness {' '.join(command)}" in examples


@pytest.mark.parametrize("group", sorted({path[:-1] for path in COMMANDS}), ids=str)
def test_help_lists_every_command(cli: Cli, group: tuple[str, ...]) -> None:
    done = cli(*group, "--help")
    assert (done.code, done.err) == (0, "")
    for command in COMMANDS:
        if command[: len(group)] == group:
            assert re.search(rf"^\W+{command[len(group)]}\b", done.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--help"], "Usage: python -m harness.cli"), (["plan", "720x720"], "2025 image tokens")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_module_answers_without_heavy_imports(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "harness.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert words in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "harness" in loaded
    assert not loaded & HEAVY


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
def test_what_a_machine_lacks_is_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-m", "harness.cli", "models", "ls"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "sp-harness: No space left on device; make room on that disk\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], "No such command 'rum'"),
        (["run", "--sise", "1"], "No such option"),
        (["plan"], "Missing argument 'SIZE'"),
        (["plan", "720x720", "--ulysses", "two"], "Invalid value for '--ulysses'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_parser_refuses_ends_with_a_box(cli: Cli, arguments: list[str], words: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert "Usage:" in done.err
    assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())
    assert "Traceback" not in done.err


class TestReaderThatHasGone:
    def ended(self, tmp_path: Path, *arguments: object) -> tuple[int, str]:
        """Run a command whose standard output nobody reads: its exit code, and what it prints to standard error."""
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
        os.close(writer)
        return done.returncode, done.stderr

    @pytest.mark.parametrize("command", [["ls"], ["plan", "720x720"], ["plan", "720x720", "--json"]], ids=" ".join)
    def test_ends_a_command_as_it_ends_cat(self, tmp_path: Path, command: list[str]) -> None:
        assert self.ended(tmp_path, *command) == (141, "")

    def test_does_not_end_a_run(self, tmp_path: Path, write: Write) -> None:
        assert self.ended(tmp_path, "run", write(ONE_ROW), "--out", tmp_path / "out") == (0, "")
        assert (only_run(tmp_path / "out") / "index.html").is_file()


def test_a_terminal_of_few_characters_gets_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "ls", str(tmp_path / "\u00fc\x1b[31m\udcff\n.toml")]
    done = subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert done.stderr.startswith(b"sp-harness: ")
    assert rb"\xfc\x1b[31m\udcff .toml: cannot be read" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"{__version__}\n")


def test_a_shell_completes_commands() -> None:
    asked = {"_SP_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": "sp-harness re", "COMP_CWORD": "1"}
    start = "import sys; sys.argv = ['sp-harness']; from harness.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["rerun", "report"], "")
