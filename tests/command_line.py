"""The command line inside this process, and what its tests give it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

from harness.cli.app import main
from tests import waiting

HEAD = 'schema = 1\nname = "m"\nmodel = "fake"\nsteps = 2\n'
CASE = '[[case]]\nsize = "128x128"\nprompt = "waves"\n'
VARIANT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\n'
OFF = 'golden = "off"\n'
ONE_ROW = HEAD + OFF + CASE + VARIANT
FAKES = (
    HEAD.replace('"m"', '"fakes"')
    + OFF
    + CASE.replace('"128x128"', '["128x128", "144x144"]')
    + VARIANT.replace('"h"', '["auto", "h", "w"]')
)
"""Six rows of twelve runs; on two ranks 128x128 has no pads at all and 144x144 has surplus pads."""


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]
Write = Callable[..., Path]


def invoke(*arguments: object) -> Done:
    """Run the command line in this process; what its child processes print is printed by it."""
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        patch.setattr(sys, "argv", ["sp-harness", *map(str, arguments)])
        try:
            with (
                _goes_to(1, out),
                _goes_to(2, err),
                redirect_stdout(out),
                redirect_stderr(err),
                pytest.raises(SystemExit) as end,
            ):
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read())
    code = end.value.code
    return Done(code if isinstance(code, int) else int(bool(code)), *printed)


@contextmanager
def _goes_to(descriptor: int, file: IO[str]) -> Iterator[None]:
    """Let a descriptor stand for a file, for processes that inherit it."""
    kept = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        file.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


@pytest.fixture
def cli() -> Iterator[Cli]:
    """The command line; none of the ranks it started may be left."""
    others = set(psutil.Process().children(recursive=True))  # of fixtures of other files
    yield invoke
    assert waiting.until(lambda: not any(map(is_rank, {*psutil.Process().children(recursive=True)} - others)))


def is_rank(process: psutil.Process) -> bool:
    try:
        return process.name() == "sp-rank" and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a matrix file; ``golden/`` lies beside its folder."""

    def write_matrix(text: str = FAKES, name: str = "fakes.toml") -> Path:
        path = tmp_path / "matrices" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_matrix


def one_line(done: Done, *words: str, code: int = 2) -> None:
    """An error a person can act on: one line, with every word, and no traceback."""
    assert done.code == code, done.out + done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("sp-harness: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in done.out


def only_run(out: Path) -> Path:
    (run,) = out.iterdir()
    return run
