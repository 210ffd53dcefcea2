"""Fuzzing: hypothesis draws matrices, the ordinary path runs them, and the smallest that fails is kept.

One pool of resident engines serves every example, so that after the first ones only pictures are paid
for. What fails is shrunk, written as a matrix file, and run once more from that file by engines of its
own: what shows only after other requests is told from what shows at once.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness import models, plugins
from harness.errors import InfrastructureError, UsageError
from harness.execution.pool import Pool
from harness.files import write_text
from harness.fuzz.space import Space
from harness.runs.folder import Plan, RunFolder
from harness.scratch import scratch
from harness.session import steps
from harness.types import Outcome, Report, digest_of

SHRINK_S = 120.0
"""Time to shrink a failure, whatever was left of the time to search."""

SWEEP_EVERY = 50
"""Examples after which their pictures are thrown away; until then a baseline may serve again."""

NOTHING_AFTER = 100
"""Draws that cannot be run, with none that can, after which it is said that none will."""


@dataclass(frozen=True)
class Found:
    """A matrix that fails, and what was said of its first failing row."""

    text: str
    outcome: Outcome
    cause: str | None
    sentence: str
    work: int
    """Tokens to denoise, over all pictures, steps and requests: what shrinking is to bring down."""

    @property
    def kind(self) -> tuple[str, ...]:
        """Outcome, cause, and of an engine that raises what it raised, numbers apart: another is another bug."""
        raised = re.sub(r"\d+", "N", self.sentence.partition(": ")[2]) if self.outcome == Outcome.ERROR else ""
        return self.outcome, self.cause or "", raised

    @property
    def name(self) -> str:
        """``fuzz-1f0c9a2b``, after the text."""
        return f"fuzz-{digest_of(self.text)[:8]}"


@dataclass
class Tally:
    """Progress of the search."""

    seconds: float
    examples: int = 0
    skips: int = 0
    found: Found | None = None
    """The smallest failure so far."""
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Until the search, or the shrinking, ends."""
        return max(0.0, self.seconds - self.elapsed_s)


OnExample = Callable[[Tally], None]


class _Stop(BaseException):
    """Ends the search from within an example; hypothesis takes any ``Exception`` for a failure to shrink."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.error = error


class _Fails(Exception):
    """An example fails; raised at one place only, so that hypothesis sees one bug."""


def fuzz(space: Space, out: Path, tally: Tally, seed: int, on_example: OnExample = lambda tally: None) -> None:
    """Draw and run examples until one fails and is shrunk, or the time is over.

    Parameters
    ----------
    space
        What is drawn.
    out
        Existing folder in which examples are run; nothing is left in it.
    tally
        Kept up to date; holds the smallest failure at the end, also where Ctrl-C ends it.
    seed
        Of the draws.
    on_example
        Told after each example.

    Raises
    ------
    InfrastructureError
        If an example fails by the machine's fault.
    UsageError
        If nothing that is drawn can be run.
    """
    from hypothesis import HealthCheck, Phase, configuration, given, reject, settings
    from hypothesis import seed as seeded
    from hypothesis.errors import Unsatisfiable

    from harness.fuzz.strategies import examples

    configuration.set_hypothesis_home_dir(models.cache_dir() / "hypothesis")  # never the working directory
    with scratch(".fuzz-", out) as folder, Pool(folder / "logs", keep=True) as pool:
        bench = _Bench(folder, pool, tally, on_example, space.python)

        @seeded(seed)
        @settings(
            max_examples=10**9,  # the clock ends it
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        @given(examples(space, plugins.load("engines", space.engine)))
        def search(text: str) -> None:
            result = bench.run(text)
            if result == "skip":
                reject()
            if result == "fail":
                raise _Fails

        try:
            search()
        except (_Fails, Unsatisfiable):
            pass  # the tally has what was found, and whether anything was run
        except _Stop as stop:
            if stop.error:
                raise stop.error from None


class _Bench:
    """Runs examples with one pool and remembers what came of them."""

    def __init__(
        self, folder: Path, pool: Pool, tally: Tally, on_example: OnExample, python: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._tally = tally
        self._on_example = on_example
        self._python = python
        self._known: dict[str, Literal["skip", "pass", "fail"]] = {}

    def run(self, text: str) -> Literal["skip", "pass", "fail"]:
        """Run an example, unless it was run before; a row that the variant cannot do makes it a skip."""
        if self._tally.left_s == 0:
            raise _Stop
        if text not in self._known:
            try:
                self._known[text] = self._try(text)
            except Exception as error:
                raise _Stop(error) from error
            self._on_example(self._tally)
        return self._known[text]

    def _try(self, text: str) -> Literal["skip", "pass", "fail"]:
        path = self._folder / "example.toml"
        path.write_text(text, encoding="utf-8")
        matrix, graph = steps.prepare(path, python=self._python)
        reasons = [row.skip for row in graph.rows if row.skip is not None]
        if reasons:
            self._tally.skips += 1
            if self._tally.examples == 0 and self._tally.skips >= NOTHING_AFTER:
                raise UsageError(f"none of {self._tally.skips} examples can be run, the last since {reasons[0]}")
            return "skip"
        if self._tally.examples % SWEEP_EVERY == 0:
            shutil.rmtree(self._folder / "runs", ignore_errors=True)
        (self._folder / "journal.jsonl").unlink(missing_ok=True)
        folder = RunFolder(self._folder, Plan("fuzz", matrix, "off", graph.rows, graph.specs))
        steps.record(folder, self._pool)
        found = worst_of(steps.conclude(folder), text)
        self._tally.examples += 1
        return "fail" if found and self._keep(found) else "pass"

    def _keep(self, found: Found) -> bool:
        """Take note of a failure; one of another cause than the first is another bug, and none here."""
        best = self._tally.found
        if best is None:
            self._tally.seconds = self._tally.elapsed_s + SHRINK_S
        elif found.kind != best.kind:
            return False
        if best is None or (found.work, len(found.text)) <= (best.work, len(best.text)):
            self._tally.found = found
        return True


def worst_of(report: Report, text: str) -> Found | None:
    """Return the first failing row of an example, or ``None``.

    Raises
    ------
    InfrastructureError
        If the machine is to blame.
    """
    for row in report.rows:
        verdict = row.verdict
        if verdict is None or verdict.outcome == Outcome.PASS:
            continue
        if verdict.infrastructure:
            raise InfrastructureError(f"fuzzing stopped at {row.name}: {verdict.sentence}")
        # Guidance draws everything twice.
        work = sum(
            case.size.tokens * case.num_images * case.steps * (1 + bool(case.guidance_scale))
            for case in report.matrix.cases
        )
        return Found(text, verdict.outcome, verdict.cause, f"{row.name}: {verdict.sentence}", work)
    return None


def write(found: Found, out: Path, command: str, python: Sequence[str] = ()) -> Path:
    """Write a failing example as a matrix file that says how it was found and how to run it."""
    path = out / f"{found.name}.toml"
    lines = [
        f"Found by: {command}",
        f"{found.outcome.value}, cause {found.cause or 'unknown'}: {found.sentence}",
        f"Run it: {run_command(path, python)}",
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return write_text(path, comment + found.text)


def run_command(path: Path, python: Sequence[str] = ()) -> str:
    """Return the command that runs an example by itself."""
    return shlex.join(["sp-harness", "run", str(path), *(word for each in python for word in ("--python", each))])


def reproduce(path: Path, out: Path, python: Sequence[str] = ()) -> tuple[Report, Path]:
    """Run a written example as ``sp-harness run`` does, with engines that have served nothing before.

    Returns
    -------
    Report, Path
        The report, and the page to open.
    """
    matrix, graph = steps.prepare(path, python=python)
    folder = RunFolder.create(out, matrix, graph, "off")
    with Pool(folder.path / "logs") as pool:
        steps.record(folder, pool)
    report = steps.conclude(folder)
    return report, steps.write_reports(report, folder.path)["html"]
