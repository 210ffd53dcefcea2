"""Children run the code of their parent: whatever lies in the working directory, installed or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.environments import child_process

SERVE = """
import sys
from pathlib import Path
from harness.execution import gpus
from harness.execution.group import WorkerGroup
from harness.execution.group_key import GroupKey
gpus.visible("cuda")
key = GroupKey(1, "cpu", "float32", "")
here = WorkerGroup(key, Path(sys.argv[1]) / "here")
here.ensure("fake")
here.kill()
"""

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Start ranks from a working directory; what they print."""

    def start(directory: Path, *flags: str, **more: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
        done = subprocess.run(
            [sys.executable, *flags, "-c", SERVE, str(tmp_path / "logs")],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        log = (tmp_path / "logs" / "here" / "rank-0.log").read_text()
        assert done.returncode == 0, done.stderr + log
        return log

    return start


def test_a_package_of_our_name_in_the_working_directory_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    trap = tmp_path / "elsewhere"
    (trap / "harness").mkdir(parents=True)
    (trap / "harness" / "__init__.py").write_text("raise SystemExit('the wrong harness')\n")
    # As sp-harness is started: without the working directory.
    assert serve(trap, "-P", PYTHONPATH=child_process.HERE) == ""


def test_ranks_run_the_code_of_a_checkout_though_another_is_installed(serve: Serve, tmp_path: Path) -> None:
    """Or none: then nothing else would be found."""
    checkout = tmp_path / "checkout"
    shutil.copytree(
        Path(child_process.HERE, "harness"), checkout / "harness", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (checkout / "harness" / "worker" / "main.py").open("a") as program:
        program.write("\nprint('from the checkout', flush=True)\n")
    assert "from the checkout" in serve(checkout)


def test_the_checkout_comes_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "HERE", "/checkout")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/other", "/checkout", ""]))
    assert child_process.search_path() == {"PYTHONPATH": os.pathsep.join(["/checkout", "/other"])}


def test_where_distributions_are_installed_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come before the standard library."""
    monkeypatch.setattr(child_process, "HERE", child_process.sysconfig.get_path("purelib"))
    assert child_process.search_path() == {}
