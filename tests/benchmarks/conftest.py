"""Scripts of ``benchmarks/``, run inside the process of the tests, where everything is imported already."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forking
from tests.command_line import invoke

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a script."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder, on the path of modules; what was imported from it is forgotten at the end."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield BENCHMARKS
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def run_script(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """``run_script(name, *arguments)``, in the root of the repository."""

    def run(name: str, *arguments: object) -> Ended:
        with monkeypatch.context() as patch:
            patch.chdir(ROOT)
            patch.setattr(sys, "argv", [str(scripts / name), *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                runpy.run_path(sys.argv[0], run_name="__main__")
        said = capsys.readouterr()
        code = end.value.code
        return Ended(code, *said) if isinstance(code, int) else Ended(1, said.out, said.err + str(code))

    return run


@pytest.fixture
def forked(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes that a script starts, and run ``sp-harness`` in this one: neither imports torch again."""
    import _common
    import _launch

    def command_line(arguments: Sequence[str]) -> tuple[int, str]:
        done = invoke(*arguments)
        return done.code, done.out + done.err

    monkeypatch.setattr(_launch, "_process", forking.Script)
    monkeypatch.setattr(_common, "command_line", command_line)
