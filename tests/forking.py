"""Processes that are forked from one that has imported what they need, as the harness' own ranks are."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from harness.models.z_image import PRELOAD


def context() -> ForkServerContext:
    """Context of multiprocessing whose forkserver, one for a session, imports torch and the pipeline once."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*PRELOAD, "cache_dit"])
    return made


class Script:
    """``python SCRIPT ARGUMENT ...`` in a fork; of :class:`subprocess.Popen` what waits for it and ends it.

    The environment is the script's before its first line, yet after the import of torch: variables that a library
    reads once have no effect.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._process = context().Process(target=_run, args=([*command[1:]], dict(env), str(log)))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("the script", timeout or 0.0)
        return code

    def kill(self) -> None:
        self._process.kill()


def _run(argv: list[str], env: dict[str, str], log: str) -> None:
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.path[:0] = [str(Path(argv[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(argv[0], run_name="__main__")
