"""Scripts of ``benchmarks/``, run inside the process of the tests, where everything is imported already."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
