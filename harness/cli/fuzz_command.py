"""What ``sp-harness fuzz`` does: progress, summary, exit code."""

from __future__ import annotations

import secrets
import shlex
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from harness import plugins
from harness.cli.console import make_console
from harness.errors import EXIT_OK, EXIT_USAGE, EXIT_VERDICT, HarnessError, UsageError, did_you_mean
from harness.fuzz import search as searching
from harness.fuzz.search import Tally
from harness.fuzz.space import Space, check

LINE_EVERY_S = 10.0
"""Where there is no terminal, a line so often."""


def run(
    engine: str,
    minutes: float,
    model: str | None,
    seed: int | None,
    max_ranks: int,
    fault: str | None,
    out: Path,
) -> int:
    """Fuzz, tell how it goes, write what fails, and return the exit code."""
    if engine not in plugins.names("engines"):
        raise UsageError(f"--engine {engine!r}: {did_you_mean(engine, plugins.names('engines'))}")
    if not 0 < minutes <= 60 * 24 * 7:
        raise UsageError(f"--minutes {minutes:g}: write a number above 0, at most a week")
    space = Space(engine, model or ("fake" if engine == "fake" else "nano"), max_ranks, fault)
    check(space)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); name another folder with --out") from None
    return search(space, out, minutes * 60, secrets.randbelow(2**32) if seed is None else seed)


def search(space: Space, out: Path, seconds: float, seed: int) -> int:
    """Fuzz within a space; the exit code is 1 with a failure, 0 without one, 2 where nothing was run.

    What ends it early (Ctrl-C, the machine) is raised again after the summary.
    """
    console = make_console()
    command = _command(space, seed)
    console.print(Text(command))
    tally = Tally(seconds)
    stopped: BaseException | None = None
    try:
        with _Progress(console) as progress:
            searching.fuzz(space, out, tally, seed, progress)
    except (KeyboardInterrupt, HarnessError) as error:
        stopped = error
    ran = f"{tally.examples} examples in {tally.elapsed_s:.0f} s, {tally.skips} more could not be run"
    console.print(Text(ran))
    if tally.found:
        path = searching.write(tally.found, out, command)
        console.print(Text(f"{tally.found.sentence}\nwritten to {path}", style="bold red"))
        console.print(Text(f"run it with: sp-harness run {shlex.quote(str(path))}"))
    if stopped:
        raise stopped
    if tally.found:
        _reproduce(console, path, out)
        return EXIT_VERDICT
    console.print(Text("no failure" if tally.examples else "nothing was run: give it more --minutes"))
    return EXIT_OK if tally.examples else EXIT_USAGE


def _reproduce(console: Console, path: Path, out: Path) -> None:
    console.print(Text("running it by itself ..."))
    report, page = searching.reproduce(path, out)
    alone = report.exit_code == EXIT_VERDICT
    what = "fails by itself too" if alone else "passes by itself: it takes the requests that came before, or chance"
    console.print(Text(f"{what}; report: {page}"))


def _command(space: Space, seed: int) -> str:
    words = ["sp-harness", "fuzz", "--engine", space.engine, "--model", space.model, "--seed", str(seed)]
    words += ["--max-ranks", str(space.max_ranks), *(["--fault", space.fault] if space.fault else [])]
    return shlex.join(words)


class _Progress:
    """Examples done and seconds left: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._said = time.monotonic()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, tally: Tally) -> None:
        """Show where the fuzzing stands after an example."""
        doing = f"shrinking {tally.found.outcome.value}, " if tally.found else ""
        line = f"{doing}{tally.examples} examples, {tally.left_s:.0f} s left"
        self._bar.update(self._task, description=line, completed=tally.elapsed_s, total=tally.seconds)
        if not self._console.is_terminal and time.monotonic() - self._said >= LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(Text(line))
